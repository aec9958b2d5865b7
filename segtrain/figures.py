"""Figures about a run that it goes on without."""

import logging
from collections.abc import Callable
from typing import TypeVar

Figure = TypeVar("Figure")

logger = logging.getLogger("segtrain")


def if_known(name: str, ask: Callable[[], Figure]) -> Figure | None:
    """What `ask` returns; None where it fails, which is logged.

    Drivers, containers and shares of a GPU fail in kinds of their own, and no hours of training
    shall end for a figure.
    """
    try:
        return ask()
    except Exception as error:
        logger.info("%s is not known here: %s: %s", name, type(error).__name__, error)
        return None
