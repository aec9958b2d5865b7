"""Parameters that no output of a network depends on, such as those behind a map that no head takes.

Data-parallel training would wait for their gradients, which never come.
"""

import copy
import logging
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from segtrain.architecture.blocks import batch_norms
from segtrain.contracts import Outputs, QueryOutputs, is_detector
from segtrain.dataset.instances import target_from_masks, training_objects

logger = logging.getLogger("segtrain")

SIDE = 224  # pixels of the image; every network for ImageNet takes it
SHOWN_NAMES = 4  # in the log


def freeze_unused(model: nn.Module) -> None:
    """Lets a network's `unused_parameters` stay as they are, and says so."""
    names = unused_parameters(model)
    for name in names:
        model.get_parameter(name).requires_grad_(False)
    if names:
        more = f", ... {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
        logger.info("unused      %d parameters stay as they are, no output depends on them: %s%s",
                    len(names), ", ".join(names[:SHOWN_NAMES]), more)  # fmt: skip


def unused_parameters(model: nn.Module) -> list[str]:
    """Names of the parameters that would learn, but that no output of a training step depends on.

    The graph that autograd makes of one forward pass is followed back from the outputs. A copy of
    the network is run, so statistics and random numbers of the training stay what they are.
    """
    copied = copy.deepcopy(model).cpu().train()
    for norm in batch_norms(copied):
        norm.eval()  # a map of a single value has no variance
    with torch.random.fork_rng(devices=[]), torch.compiler.set_stance("force_eager"):
        outputs = copied(*example(model))
    used = {id(parameter) for parameter in parameters_behind(outputs)}
    return [
        name
        for name, parameter in copied.named_parameters()
        if parameter.requires_grad and id(parameter) not in used
    ]


def example(model: nn.Module) -> tuple:
    """What a network takes in training: one black image, and a detector its one object."""
    image = torch.zeros(3, SIDE, SIDE, dtype=torch.uint8)
    if not is_detector(model):
        return (image[None],)
    mask = np.zeros((1, SIDE, SIDE), np.uint8)
    mask[:, SIDE // 4 : SIDE // 2, SIDE // 4 : SIDE // 2] = 1
    objects = target_from_masks(mask, [0], np.zeros(1, bool), 0)
    return [image], [training_objects(objects, (SIDE, SIDE), flip=False)]


def parameters_behind(outputs: Outputs | QueryOutputs | dict) -> list[Tensor]:
    """The leaves of the graph behind a network's outputs."""
    nodes = [part.grad_fn for part in tensors_of(outputs)]
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


def tensors_of(outputs: object) -> Iterator[Tensor]:
    """The tensors of an output, of dictionaries and lists in one another."""
    if isinstance(outputs, Tensor):
        yield outputs
    elif isinstance(outputs, dict | list):
        for part in outputs.values() if isinstance(outputs, dict) else outputs:
            yield from tensors_of(part)
