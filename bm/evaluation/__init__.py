"""Judge a trained model by retrieval, and report."""

from bm.evaluation.candidates import Prediction
from bm.evaluation.retrieval import Retrieval, retrieve
from bm.evaluation.words import word_accuracy

__all__ = ["Prediction", "Retrieval", "retrieve", "word_accuracy"]
