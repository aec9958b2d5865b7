"""Predictions of one picture, as arrays, pictures and files."""

from segtrain.prediction.instance import InstancePrediction
from segtrain.prediction.semantic import SemanticPrediction

Prediction = SemanticPrediction | InstancePrediction

__all__ = ["InstancePrediction", "Prediction", "SemanticPrediction"]
