"""Learning-rate schedules: step -> factor of the base learning rate."""

from bisect import bisect_right


def poly(step: int, max_steps: int, power: float, warmup_steps: int) -> float:
    """Poly decay (1 - step / max_steps) ** power (Liu et al. 2015, ParseNet; Chen et al. 2016).

    The first `warmup_steps` steps are also scaled linearly from 1 / warmup_steps to 1. `step` is
    the number of optimiser steps already taken.
    """
    decay = max(0.0, 1 - step / max_steps) ** power
    return decay * min(1.0, (step + 1) / warmup_steps) if warmup_steps else decay


def step_decay(step: int, gamma: float, milestones: list[int], warmup_steps: int) -> float:
    """gamma to the power of the milestones reached, Caffe's "multistep" policy; warm-up as poly."""
    decay = gamma ** bisect_right(milestones, step)
    return decay * min(1.0, (step + 1) / warmup_steps) if warmup_steps else decay
