"""segtrain: config-driven training and benchmarking of image segmentation.

`load` and `build` are imported when they are first used, so that the command line starts at once.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segtrain.errors import UserError
    from segtrain.loading import load
    from segtrain.network import build
    from segtrain.prediction import InstancePrediction, Prediction, SemanticPrediction
    from segtrain.predictor import Predictor

__version__ = "0.2.0"
__all__ = [
    "InstancePrediction",
    "Prediction",
    "Predictor",
    "SemanticPrediction",
    "UserError",
    "build",
    "load",
]

_PLACES = {
    "InstancePrediction": "segtrain.prediction",
    "Prediction": "segtrain.prediction",
    "Predictor": "segtrain.predictor",
    "SemanticPrediction": "segtrain.prediction",
    "UserError": "segtrain.errors",
    "build": "segtrain.network",
    "load": "segtrain.loading",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'segtrain' has no attribute '{name}'")
    return getattr(importlib.import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PLACES])
