"""Judge a trained model by retrieval, and report."""

from bm.evaluation.candidates import Prediction
from bm.evaluation.retrieval import Retrieval, Watch, retrieve
from bm.evaluation.words import word_accuracy

__all__ = ["Prediction", "Retrieval", "Watch", "retrieve", "word_accuracy"]
