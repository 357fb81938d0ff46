"""Judge a trained model by retrieval, and report."""

from bm.evaluation.candidates import Embedded
from bm.evaluation.retrieval import Retrieval, Watch, retrieve
from bm.evaluation.words import word_accuracy

__all__ = ["Embedded", "Retrieval", "Watch", "retrieve", "word_accuracy"]
