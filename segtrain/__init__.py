"""segtrain: config-driven training and benchmarking of image segmentation.

What is public is imported when it is first used, so that the command line starts at once.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segtrain.errors import UserError
    from segtrain.loading import load
    from segtrain.network import build
    from segtrain.prediction import (
        InstancePrediction,
        MultilabelPrediction,
        PanopticPrediction,
        Prediction,
        SemanticPrediction,
    )
    from segtrain.predictor import Predictor
    from segtrain.run import Run, Runs, runs

__version__ = "0.2.0"
__all__ = [
    "InstancePrediction",
    "MultilabelPrediction",
    "PanopticPrediction",
    "Prediction",
    "Predictor",
    "Run",
    "Runs",
    "SemanticPrediction",
    "UserError",
    "build",
    "load",
    "runs",
]

_PLACES = {
    "InstancePrediction": "segtrain.prediction",
    "MultilabelPrediction": "segtrain.prediction",
    "PanopticPrediction": "segtrain.prediction",
    "Prediction": "segtrain.prediction",
    "Predictor": "segtrain.predictor",
    "Run": "segtrain.run",
    "Runs": "segtrain.run",
    "SemanticPrediction": "segtrain.prediction",
    "UserError": "segtrain.errors",
    "build": "segtrain.network",
    "load": "segtrain.loading",
    "runs": "segtrain.run",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'segtrain' has no attribute '{name}'")
    return getattr(importlib.import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return list(__all__)
