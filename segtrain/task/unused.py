"""Parameters that no output of a network depends on, such as those behind a map that no head takes.

Data-parallel training would wait for their gradients, which never come.
"""

import copy
import logging

import numpy as np
import torch
from torch import Tensor, nn

from segtrain.architecture.blocks import batch_norms
from segtrain.contracts import DENSE, Outputs
from segtrain.dataset.instances import target_from_masks, training_objects

logger = logging.getLogger("segtrain")

SIDE = 224  # pixels of the image; every network for ImageNet takes it
SHOWN_NAMES = 4  # in the log


def freeze_unused(model: nn.Module, task: str) -> None:
    """Lets a network's `unused_parameters` stay as they are, and says so."""
    names = unused_parameters(model, task)
    for name in names:
        model.get_parameter(name).requires_grad_(False)
    if names:
        more = f", ... {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
        logger.info("unused      %d parameters stay as they are, no output depends on them: %s%s",
                    len(names), ", ".join(names[:SHOWN_NAMES]), more)  # fmt: skip


def unused_parameters(model: nn.Module, task: str) -> list[str]:
    """Names of the parameters that would learn, but that no output of a training step depends on.

    The graph that autograd makes of one forward pass is followed back from the outputs. A copy of
    the network is run, so statistics and random numbers of the training stay what they are.

    Args:
        model: the network.
        task: what it is for: semantic, instance or proposal.
    """
    copied = copy.deepcopy(model).cpu().train()
    for norm in batch_norms(copied):
        norm.eval()  # a map of a single value has no variance
    with torch.random.fork_rng(devices=[]), torch.compiler.set_stance("force_eager"):
        outputs = copied(*example(task))
    used = {id(parameter) for parameter in parameters_behind(outputs)}
    return [
        name
        for name, parameter in copied.named_parameters()
        if parameter.requires_grad and id(parameter) not in used
    ]


def example(task: str) -> tuple:
    """What a network for the task takes in training: one black image, and its one object."""
    image = torch.zeros(3, SIDE, SIDE, dtype=torch.uint8)
    if task in DENSE:
        return (image[None],)
    mask = np.zeros((1, SIDE, SIDE), np.uint8)
    mask[:, SIDE // 4 : SIDE // 2, SIDE // 4 : SIDE // 2] = 1
    objects = target_from_masks(mask, [0], np.zeros(1, bool), 0)
    return [image], [training_objects(objects, (SIDE, SIDE), flip=False)]


def parameters_behind(outputs: Outputs | dict) -> list[Tensor]:
    """The leaves of the graph behind a network's outputs."""
    parts = [
        part
        for value in outputs.values()
        for part in (value if isinstance(value, list) else [value])
    ]
    nodes = [part.grad_fn for part in parts if isinstance(part, Tensor)]
    seen, leaves = {None}, []
    while nodes:
        node = nodes.pop()
        if node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            leaves.append(node.variable)
        nodes += [following for following, _ in node.next_functions]
    return leaves
