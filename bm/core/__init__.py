"""What every other room stands on: hashing, the disk cache, messages. Imports nothing else of bm."""
