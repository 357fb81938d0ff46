"""What benchmarks share: timing, made-up data of the paper's shape, and the plain reference."""
