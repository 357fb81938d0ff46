"""What `synthetic` is made of: speech, heads, responses, noise. None of it is real data."""
