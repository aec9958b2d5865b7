"""Predictions of one picture, as arrays, pictures and files."""

from segtrain.prediction.instance import InstancePrediction
from segtrain.prediction.multilabel import MultilabelPrediction
from segtrain.prediction.semantic import SemanticPrediction

Prediction = SemanticPrediction | MultilabelPrediction | InstancePrediction

__all__ = ["InstancePrediction", "MultilabelPrediction", "Prediction", "SemanticPrediction"]
