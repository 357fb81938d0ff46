"""Judge a trained model by retrieval, and report."""

from bm.evaluation.retrieval import Prediction, Retrieval, retrieve

__all__ = ["Prediction", "Retrieval", "retrieve"]
