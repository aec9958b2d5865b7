"""Predictions of one picture, as arrays, pictures and files."""

from segtrain.prediction.instance import InstancePrediction
from segtrain.prediction.multilabel import MultilabelPrediction
from segtrain.prediction.panoptic import PanopticPrediction
from segtrain.prediction.semantic import SemanticPrediction

Prediction = SemanticPrediction | MultilabelPrediction | InstancePrediction | PanopticPrediction

__all__ = [
    "InstancePrediction",
    "MultilabelPrediction",
    "PanopticPrediction",
    "Prediction",
    "SemanticPrediction",
]
