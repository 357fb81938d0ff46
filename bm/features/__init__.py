"""Features of the stimulus: what the brain signal is matched against."""

from bm.features import (  # noqa: F401  (each module registers its features)
    audio,
    chunk,
    language_models,
    mel,
    phonemes,
    speech,
    text,
    words,
)
from bm.features.base import EventFeature, Feature, SoundFeature, make_features, register, registry
from bm.features.table import FeatureTable, build_table, word_mask

__all__ = [
    "EventFeature",
    "Feature",
    "FeatureTable",
    "SoundFeature",
    "build_table",
    "make_features",
    "register",
    "registry",
    "word_mask",
]
