"""Decode speech from MEG and EEG with contrastive learning.

Défossez et al. 2023, Nature Machine Intelligence, doi:10.1038/s42256-023-00714-5.
"""

__version__ = "0.1.0"
