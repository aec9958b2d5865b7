"""Seconds of a training step on this machine, from a few real steps on random input."""

import json
import math
import re
import time
from collections.abc import Callable
from datetime import datetime
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from segtrain.assembly import build_task, make
from segtrain.dataset.cache import store_entry, stored_entry
from segtrain.dataset.instances import target_from_masks, training_objects
from segtrain.hardware import resolve_precision, uses_gpu
from segtrain.label_set import LabelSet
from segtrain.planes import depth
from segtrain.trained import without_pretraining

FILE = "training_speed.json"  # in the cache; a person may read and delete it
LEVELS = ((0.25, 2), (0.5, 2), (1.0, 2), (1.0, None))  # share of the side, images; None: all
OBJECTS = 7  # an image
SEGMENTS = (2, 4)  # an image of panoptic sets, above and beside one another
CALLS = 3  # of each step: the first is not timed, the fastest of the others counts
STILL = 1e-12  # learning rate: random labels must not make a network diverge


def device_name(trainer: dict) -> str:
    """What the trainer settings lead to on this machine."""
    if uses_gpu(trainer):
        return torch.cuda.get_device_name()
    try:
        model = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        model = None
    name = model[1].strip() if model else "CPU"
    threads = torch.get_num_threads()
    return f"{name}, {threads} thread{'s' if threads > 1 else ''}"


def images_a_step(config: dict) -> int:
    """Images that one process sees in a forward pass."""
    trainer = config["trainer"]
    parts = trainer["accumulate_grad_batches"]
    for count in (trainer["devices"], trainer["num_nodes"]):
        parts *= count if isinstance(count, int) else 1
    return max(1, config["batch_size"] // parts)


def picture_size(config: dict) -> tuple[int, int]:
    """Height and width of a training image: the crop, or a 3:4 picture at the middle side."""
    transform = config["dataset"]["transform"]
    crops = transform.get("scale_jitter") or transform
    if "crop_size" in crops:
        return tuple(crops["crop_size"])
    side = round(sum(transform["short_side"]) / 2)
    return side, min(transform["long_side"], round(side * 4 / 3))


def speed_key(config: dict) -> str:
    """What the speed depends on, as a hash."""
    parts = [
        device_name(config["trainer"]), torch.__version__, resolve_precision(config["trainer"]),
        without_pretraining(config["architecture"]), config["loss"], config["optimizer"],
        config["frozen"], config["trainer"]["compile"], picture_size(config),
        images_a_step(config), config["dataset"]["labels"],
    ]  # fmt: skip
    return sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def stored_speed(config: dict) -> dict | None:
    """What `measure_speed` found earlier; None where it was not measured."""
    return stored_entry(FILE, speed_key(config), {"seconds": int | float, "measured": str})


def measure_speed(config: dict, experiment: str, seconds: float) -> dict:
    """Measures and stores the time of forward, loss, backward and optimiser of one process.

    Steps grow from two small images to the recipe's own until the time is used up; what could not
    be measured follows from the last two, as a line over the number of pixels.

    Args:
        config: of the training.
        experiment: its name, for the reader of the file.
        seconds: after which no larger step is begun.

    Returns:
        `seconds` of a step, and `measured`, the input of the largest one.
    """
    size, images = picture_size(config), images_a_step(config)
    step = _step_of(config)
    started, points = time.perf_counter(), []
    for share, count in LEVELS:
        count = images if count is None else min(count, images)
        height, width = (_side(length, share) for length in size)
        pixels = count * height * width
        if points and pixels == points[-1][0]:
            continue
        # Two sizes tell what a step costs at any; the second is worth some patience.
        left = seconds - (time.perf_counter() - started) if len(points) > 1 else 4 * seconds
        if points and CALLS * points[-1][1] * pixels / points[-1][0] > left:
            break
        try:
            taken = step(count, height, width)
        except RuntimeError:  # too small for the network, or too large for the device
            if points:
                break
            continue
        points.append((pixels, taken, f"{count} x {height}x{width}"))
    if not points:
        raise RuntimeError("no step of this network could be measured")
    whole = images * size[0] * size[1]
    entry = {
        "experiment": experiment, "device": device_name(config["trainer"]),
        "precision": resolve_precision(config["trainer"]),
        "input": f"{images} x {size[0]}x{size[1]}",
        "seconds": extrapolated([point[:2] for point in points], whole),
        "measured": points[-1][2], "date": datetime.now().isoformat(timespec="seconds"),
    }  # fmt: skip
    store_entry(FILE, speed_key(config), entry)
    return entry


def extrapolated(points: list[tuple[int, float]], pixels: int) -> float:
    """Seconds at a number of pixels, on the line through the last two of (pixels, seconds)."""
    last, seconds = points[-1]
    if last >= pixels:
        return seconds
    slope = seconds / last
    if len(points) > 1:
        before, earlier = points[-2]
        slope = min(slope, max(0.0, (seconds - earlier) / (last - before)))
    return seconds + slope * (pixels - last)


def _side(length: int, share: float) -> int:
    """A share of a side, of the form 8k + 1 as crops mostly are."""
    return length if share == 1 else 8 * max(4, round(share * length / 8)) + 1


def _step_of(config: dict) -> Callable[[int, int, int], float]:
    """(images, height, width) -> seconds of a training step."""
    settings = config["trainer"]
    device = torch.device("cuda" if uses_gpu(settings) else "cpu")
    labels = make(config["dataset"]["labels"])
    plain = config | {"weights": None, "architecture": without_pretraining(config["architecture"])}
    task = build_task(plain, labels).to(device).train()
    optimizer, _ = make(config["optimizer"] | {"lr": STILL})(task.model, max_steps=1000)
    enabled = resolve_precision(settings) == "bf16-mixed"

    def run(batch: dict) -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=enabled):
            terms = task.evaluation.terms(task.model, task.loss, batch)
        torch.stack(list(terms.values())).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        if device.type == "cuda":
            torch.cuda.synchronize()

    def step(count: int, height: int, width: int) -> float:
        batch = random_batch(config, labels, (count, height, width), device)
        run(batch)
        taken = []
        for _ in range(CALLS - 1):
            started = time.perf_counter()
            run(batch)
            taken.append(time.perf_counter() - started)
        return min(taken)

    return step


def random_batch(
    config: dict, labels: LabelSet, shape: tuple[int, int, int], device: torch.device
) -> dict:
    """Random images with labels of the kind that the data set's transform and classes say.

    Args:
        config: of the training.
        labels: the classes.
        shape: images, height and width.
        device: of the tensors.
    """
    classes = labels.num_classes
    if "crop_size" not in config["dataset"]["transform"]:
        return instance_batch(*shape, classes, device)
    batch = pixel_batch(*shape, classes, device)
    if labels.overlapping:
        mask = torch.randint(0, 256, (*shape, depth(classes)), dtype=torch.uint8, device=device)
        mask[..., 0] = 0  # no void
        return {**batch, "mask": mask}
    if labels.things is None:
        return batch
    number = torch.arange(math.prod(SEGMENTS), device=device).view(1, *SEGMENTS)
    label = torch.randint(0, classes, (shape[0], *SEGMENTS), device=device)
    is_thing = torch.isin(label, label.new_tensor(sorted(labels.things)))
    cells = torch.stack([label, (number + 1) * is_thing, torch.zeros_like(label)], 1).float()
    mask = F.interpolate(cells, shape[1:], mode="nearest").to(torch.uint8)
    return {**batch, "mask": mask.permute(0, 2, 3, 1)}


def pixel_batch(
    count: int, height: int, width: int, classes: int, device: torch.device
) -> dict[str, torch.Tensor]:
    """Random images and masks."""
    image = torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, device=device)
    mask = torch.randint(0, classes, (count, height, width), dtype=torch.uint8, device=device)
    return {"image": image.contiguous(memory_format=torch.channels_last), "mask": mask}


def instance_batch(
    count: int, height: int, width: int, classes: int, device: torch.device
) -> dict[str, list]:
    """Random images with rectangles of random classes."""
    rng = np.random.default_rng(0)
    images, targets = [], []
    for number in range(count):
        masks = np.zeros((OBJECTS, height, width), np.uint8)
        for mask in masks:
            side = max(4, int(min(height, width) * rng.uniform(0.1, 0.5)))
            top, left = (int(rng.integers(0, length - side)) for length in (height, width))
            mask[top : top + side, left : left + side] = 1
        classes_of = rng.integers(0, classes, OBJECTS).tolist()
        objects = target_from_masks(masks, classes_of, np.zeros(OBJECTS, bool), number)
        target = training_objects(objects, (width, height), flip=False)
        targets.append({key: value.to(device) for key, value in target.items()})
        images.append(torch.randint(0, 256, (3, height, width), dtype=torch.uint8, device=device))
    return {"image": images, "target": targets}
