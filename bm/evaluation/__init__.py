"""Judge a trained model by retrieval, and report."""

from bm.evaluation.candidates import SegmentFeatures
from bm.evaluation.retrieval import Retrieval, Watch, retrieve
from bm.evaluation.words import word_accuracy

__all__ = ["SegmentFeatures", "Retrieval", "Watch", "retrieve", "word_accuracy"]
