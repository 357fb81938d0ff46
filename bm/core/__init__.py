"""What all rooms stand on: hashing, the disk cache, messages. Imports nothing else of bm."""
