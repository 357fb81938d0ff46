"""Grids of Défossez et al. 2023, doi:10.1038/s42256-023-00714-5."""
