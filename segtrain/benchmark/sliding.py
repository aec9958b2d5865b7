"""Sliding windows here, against one crop per forward pass into full-size sums."""

import resource
from functools import partial
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segtrain.assembly import build_data, build_model
from segtrain.benchmark.step import autocast
from segtrain.benchmark.timing import alternate, median_ratio
from segtrain.configuration.schema import Recipe
from segtrain.hardware import resolve_precision, uses_gpu
from segtrain.inference.window import SlidingWindow, window_starts
from segtrain.values import Count, Counts, Size


def sliding_speed(
    config: Recipe,
    size: Size,
    crop_size: Size,
    stride: Size,
    crops_at_once: Counts,
    rounds: Count,
) -> list[dict]:
    """A row for the plain way and for each number of crops at once: time, and the difference.

    The plain way is that of public frameworks: one crop per forward pass, its scores padded to
    the picture's size and added to a sum of that size.

    Args:
        config: the resolved configuration.
        size: height and width of the picture.
        crop_size: height and width of a window.
        stride: vertically and horizontally.
        crops_at_once: numbers of crops that go through the network together.
        rounds: timed pictures, after one that is not.
    """
    device = torch.device("cuda" if uses_gpu(config["trainer"]) else "cpu")
    classes = build_data(config).labels.num_classes
    model = build_model(config, classes).to(device).eval()
    picture = torch.randint(0, 256, (3, *size), dtype=torch.uint8, device=device)
    ways = {"one crop, full-size sums": partial(plain_sliding, model, picture, crop_size, stride)}
    for count in crops_at_once:
        window = SlidingWindow(crop_size, stride, "probabilities", count, "device")
        ways[f"segtrain, {count} at once"] = partial(window, model, picture[None], None)
    with torch.no_grad(), autocast(resolve_precision(config["trainer"]), device):
        seconds = alternate(ways, rounds)
        results = {name: way() for name, way in ways.items()}
    plain = next(iter(ways))
    expected = results[plain].log()
    return [
        {
            "way": name,
            "picture": f"{size[0]}x{size[1]}",
            "windows": f"{crop_size[0]}x{crop_size[1]} every {stride[0]}x{stride[1]}",
            "precision": resolve_precision(config["trainer"]),
            "ms": 1e3 * median(seconds[name]),
            "times faster": median_ratio(seconds[plain], seconds[name]),
            "largest difference": 0.0
            if name == plain
            else float((results[name][0] - expected).abs().max()),
            "peak memory so far MB": peak_memory(device) / 2**20,
        }
        for name in ways
    ]


def plain_sliding(
    model: nn.Module, picture: Tensor, crop_size: list[int], stride: list[int]
) -> Tensor:
    """(K, H, W) mean probabilities."""
    height, width = picture.shape[1:]
    total, count = 0, picture.new_zeros((height, width), dtype=torch.float32)
    for top in window_starts(height, crop_size[0], stride[0]):
        for left in window_starts(width, crop_size[1], stride[1]):
            crop = picture[None, :, top : top + crop_size[0], left : left + crop_size[1]]
            logits = model(crop)["logits"].float()
            scores = F.interpolate(
                logits, crop.shape[2:], mode="bilinear", align_corners=model.align_corners
            ).softmax(1)[0]
            bottom, right = top + crop.shape[2], left + crop.shape[3]
            total = total + F.pad(scores, (left, width - right, top, height - bottom))
            count[top:bottom, left:right] += 1
    return total / count


def peak_memory(device: torch.device) -> int:
    """Bytes, of the device or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
