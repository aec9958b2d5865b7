"""Optimiser and schedule together, as a recipe states them."""

from functools import partial

import torch
from torch import nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from segtrain.optimizer.groups import Kind, parameter_groups
from segtrain.optimizer.schedule import delayed_poly, poly, step_decay
from segtrain.values import Natural, NonNegative, ProperFraction, Share


def sgd_poly(
    model: nn.Module,
    max_steps: int,
    *,
    lr: NonNegative,
    momentum: ProperFraction,
    weight_decay: NonNegative,
    head_multiplier: NonNegative,
    bias_multiplier: NonNegative,
    no_decay: list[Kind],
    power: NonNegative,
    warmup_steps: Natural,
) -> tuple[Optimizer, LambdaLR]:
    """SGD with momentum and poly decay, stepped once per optimiser step; power 0: a fixed rate."""
    groups = parameter_groups(model, lr, weight_decay, head_multiplier, bias_multiplier, no_decay)
    optimizer = _sgd(model, groups, lr, momentum)
    return optimizer, _poly_lr(optimizer, max_steps, power, warmup_steps)


def sgd_step(
    model: nn.Module,
    max_steps: int,
    *,
    lr: NonNegative,
    momentum: ProperFraction,
    weight_decay: NonNegative,
    head_multiplier: NonNegative,
    bias_multiplier: NonNegative,
    no_decay: list[Kind],
    gamma: NonNegative,
    milestones: list[Natural],
    warmup_steps: Natural,
    warmup_factor: ProperFraction,
) -> tuple[Optimizer, LambdaLR]:
    """SGD with momentum, its rate multiplied by gamma at each milestone, an optimiser step.

    The warm-up starts at `warmup_factor` times the rate, see `warm_up`.
    """
    groups = parameter_groups(model, lr, weight_decay, head_multiplier, bias_multiplier, no_decay)
    optimizer = _sgd(model, groups, lr, momentum)
    return optimizer, _step_lr(optimizer, gamma, milestones, warmup_steps, warmup_factor)


def adamw_poly(
    model: nn.Module,
    max_steps: int,
    *,
    lr: NonNegative,
    betas: tuple[ProperFraction, ProperFraction],
    weight_decay: NonNegative,
    head_multiplier: NonNegative,
    no_decay: list[Kind],
    power: NonNegative,
    warmup_steps: Natural,
    layer_decay: Share = 1.0,  # older runs have none
) -> tuple[Optimizer, LambdaLR]:
    """AdamW (Loshchilov & Hutter 2019) and poly decay, stepped once per optimiser step."""
    groups = parameter_groups(model, lr, weight_decay, head_multiplier, 1.0, no_decay, layer_decay)
    optimizer = _adamw(model, groups, lr, betas)
    return optimizer, _poly_lr(optimizer, max_steps, power, warmup_steps)


def adamw_step(
    model: nn.Module,
    max_steps: int,
    *,
    lr: NonNegative,
    betas: tuple[ProperFraction, ProperFraction],
    weight_decay: NonNegative,
    head_multiplier: NonNegative,
    no_decay: list[Kind],
    gamma: NonNegative,
    milestones: list[Natural],
    warmup_steps: Natural,
    warmup_factor: ProperFraction,
) -> tuple[Optimizer, LambdaLR]:
    """AdamW, its rate multiplied by gamma at each milestone; see `sgd_step`."""
    groups = parameter_groups(model, lr, weight_decay, head_multiplier, 1.0, no_decay)
    optimizer = _adamw(model, groups, lr, betas)
    return optimizer, _step_lr(optimizer, gamma, milestones, warmup_steps, warmup_factor)


def adamw_two_stage(
    model: nn.Module,
    max_steps: int,
    *,
    lr: NonNegative,
    betas: tuple[ProperFraction, ProperFraction],
    weight_decay: NonNegative,
    head_multiplier: NonNegative,
    no_decay: list[Kind],
    power: NonNegative,
    warmup_steps: Natural,
    backbone_warmup_steps: Natural,
    layer_decay: Share,
) -> tuple[Optimizer, LambdaLR]:
    """AdamW for a trained backbone below new parts, as EoMT (arXiv 2503.19108) trains.

    The backbone's rate is 0 while the others' rises in `warmup_steps`, then rises in
    `backbone_warmup_steps`. Each decays by poly over the steps that are left to it.
    """
    groups = parameter_groups(
        model, lr, weight_decay, head_multiplier, 1.0, no_decay, layer_decay, whole_last=True
    )
    optimizer = _adamw(model, groups, lr, betas)
    stages = {"head": (0, warmup_steps), "backbone": (warmup_steps, backbone_warmup_steps)}
    factors = []
    for group in groups:
        wait, rising = stages[group["name"].partition("_")[0]]
        factors.append(partial(delayed_poly, max_steps=max_steps, power=power, wait=wait,
                               warmup_steps=rising))  # fmt: skip
    return optimizer, LambdaLR(optimizer, factors)


def _sgd(model: nn.Module, groups: list[dict], lr: float, momentum: float) -> SGD:
    """SGD whose momentum starts at zero.

    PyTorch's kernel would start it at the first gradient, but leaves it uninitialised where that
    one overflows in float16 and the step is skipped.
    """
    optimizer = SGD(groups, lr=lr, momentum=momentum, fused=_fused(model))
    if momentum:
        for parameter in (p for group in groups for p in group["params"]):
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def _adamw(model: nn.Module, groups: list[dict], lr: float, betas: tuple[float, float]) -> AdamW:
    return AdamW(groups, lr=lr, betas=tuple(betas), fused=_fused(model))


def _fused(model: nn.Module) -> bool:
    """One kernel for all parameters, where PyTorch has it."""
    return next(model.parameters()).device.type in ("cpu", "cuda")


def _poly_lr(optimizer: Optimizer, max_steps: int, power: float, warmup_steps: int) -> LambdaLR:
    factor = partial(poly, max_steps=max_steps, power=power, warmup_steps=warmup_steps)
    return LambdaLR(optimizer, factor)


def _step_lr(
    optimizer: Optimizer,
    gamma: float,
    milestones: list[int],
    warmup_steps: int,
    warmup_factor: float,
) -> LambdaLR:
    factor = partial(step_decay, gamma=gamma, milestones=milestones, warmup_steps=warmup_steps,
                     warmup_factor=warmup_factor)  # fmt: skip
    return LambdaLR(optimizer, factor)
