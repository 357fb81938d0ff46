"""Benchmarks, one a file: ``Settings``, and ``run`` that gives rows (see `scripts.benchmark`)."""
