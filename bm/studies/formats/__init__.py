"""Readers of the file formats that studies come in; every fault names its file."""
