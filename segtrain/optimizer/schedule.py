"""Learning-rate schedules: step -> factor of the base learning rate."""

from bisect import bisect_right


def poly(step: int, max_steps: int, power: float, warmup_steps: int) -> float:
    """Poly decay (1 - step / max_steps) ** power (Liu et al. 2015, ParseNet; Chen et al. 2016).

    The first `warmup_steps` steps are also scaled by `warm_up`, from 0. `step` is the number of
    optimiser steps already taken.
    """
    return max(0.0, 1 - step / max_steps) ** power * warm_up(step, warmup_steps, 0.0)


def delayed_poly(step: int, max_steps: int, power: float, wait: int, warmup_steps: int) -> float:
    """Nothing for `wait` steps, then `warm_up` from 0, then poly decay over the steps left."""
    if step < wait:
        return 0.0
    start = wait + warmup_steps
    over = max(0, step - start) / max(1, max_steps - start)
    return max(0.0, 1 - over) ** power * warm_up(step - wait, warmup_steps, 0.0)


def step_decay(
    step: int, gamma: float, milestones: list[int], warmup_steps: int, warmup_factor: float
) -> float:
    """gamma to the power of the milestones reached, Caffe's "multistep" policy; and `warm_up`."""
    return gamma ** bisect_right(milestones, step) * warm_up(step, warmup_steps, warmup_factor)


def warm_up(step: int, warmup_steps: int, start: float) -> float:
    """Rises linearly from `start`, before the first step, to 1 at the last of `warmup_steps`."""
    return start + (1 - start) * min(1.0, (step + 1) / warmup_steps) if warmup_steps else 1.0
