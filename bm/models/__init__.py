"""Brain encoders: pure torch, `[B, C, T]` in, `[B, F, T]` out."""

from bm.models.convrnn import ConvRNN
from bm.models.deepmel import DeepMel
from bm.models.external import ExternalEncoder, build_external
from bm.models.one_hot import OneHot
from bm.models.segment_sound import SegmentSound
from bm.models.simpleconv import SimpleConv

__all__ = [
    "ConvRNN",
    "DeepMel",
    "ExternalEncoder",
    "OneHot",
    "SegmentSound",
    "SimpleConv",
    "build_external",
]
