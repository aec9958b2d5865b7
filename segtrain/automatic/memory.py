"""How many images a step the memory holds, found by steps of one and two."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from segtrain.architecture.imagenet import untrained
from segtrain.assembly import build_model
from segtrain.automatic.facts import Facts
from segtrain.automatic.rules import crop_size, detector_size, training_size
from segtrain.configuration.schema import Recipe
from segtrain.dataset.instances import target_from_masks, training_objects

SPARE = 0.7  # of the free memory is used
OBJECTS = 10  # in an image of those that a detector is tried with


def fitting(config: Recipe, facts: Facts) -> int:
    """The most images a step that the free memory holds, at least one: two are tried.

    What they take over what one takes is the share of an image.
    """
    backbone = config["architecture"]["backbone"]
    backbone = {**backbone, "weights": untrained(backbone["weights"])}
    architecture = {**config["architecture"], "backbone": backbone}
    try:
        model = build_model({**config, "architecture": architecture}, len(facts.names))
        taken = [step_memory(model, inputs(facts, count), facts.gpu) for count in (1, 2)]
    except (torch.OutOfMemoryError, MemoryError):
        return 1
    except RuntimeError as error:  # the host's allocator
        if "memory" not in str(error):
            raise
        return 1
    share = max(taken[1] - taken[0], 1)
    return max(1, int(1 + (SPARE * facts.memory - taken[0]) / share))


def inputs(facts: Facts, count: int) -> tuple[Any, ...]:
    """What a network is called with in a step of `count` images, as large as they are trained."""
    device = torch.device("cuda" if facts.gpu else "cpu")
    if not facts.instances:
        size = crop_size(facts, training_size(facts)[0])
        return (torch.zeros(count, 3, *size, dtype=torch.uint8, device=device),)
    height, width = detector_size(facts)
    masks = np.zeros((OBJECTS, height, width), np.uint8)
    masks[:, height // 4 : 3 * height // 4, width // 4 : 3 * width // 4] = 1
    target = target_from_masks(masks, [0] * OBJECTS, np.zeros(OBJECTS, bool), 0)
    objects = training_objects(target, (width, height), flip=False)
    image = torch.zeros(3, height, width, dtype=torch.uint8, device=device)
    return [image] * count, [{name: part.to(device) for name, part in objects.items()}] * count


def step_memory(model: nn.Module, inputs: tuple[Any, ...], gpu: bool) -> int:
    """Bytes that the tensors of a step take at their most."""
    held: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        held[storage.data_ptr()] = storage.nbytes()
        return tensor

    model = model.to("cuda" if gpu else "cpu").train()
    if gpu:
        torch.cuda.reset_peak_memory_stats()
        trained_part(model(*inputs)).backward()
        return torch.cuda.max_memory_allocated()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        trained_part(model(*inputs)).backward()
    # What the backward pass needs; as much again are gradients, buffers and the loss's own maps.
    return 2 * sum(held.values())


def trained_part(outputs: dict[str, Any]) -> Tensor:
    """A number that depends on whatever the network puts out to be trained."""
    lists = [value if isinstance(value, list) else [value] for value in outputs.values()]
    tensors = [tensor for values in lists for tensor in values if isinstance(tensor, Tensor)]
    return sum(tensor.float().mean() for tensor in tensors if tensor.grad_fn and tensor.numel())
