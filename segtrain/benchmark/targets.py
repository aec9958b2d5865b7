"""Decoding of COCO's instance targets, against torchvision's way."""

import statistics
from functools import partial

import torch
from pycocotools import coco
from pycocotools import mask as rle
from torchvision.datasets import CocoDetection

from segtrain.assembly import build_data
from segtrain.benchmark.timing import alternate, median_ratio
from segtrain.configuration.schema import Recipe
from segtrain.dataset.coco import CocoInstances
from segtrain.errors import UserError
from segtrain.values import Count


def target_speed(config: Recipe, samples: Count, rounds: Count) -> list[dict]:
    """One row: targets per second of both, ratio, and whether the masks are equal.

    torchvision's way is `CocoDetection` with the conversion of its detection references: every
    polygon is rasterised anew, each instance on its own, for every sample.

    Args:
        config: the resolved configuration, with a COCO instance set.
        samples: images of the training split that are decoded.
        rounds: both take turns this many times.

    Raises:
        UserError: the data set holds no COCO instances.
    """
    torch.set_num_threads(1)
    data = build_data(config)
    source = data.source(data.splits["train"].split("+")[0])
    if not isinstance(source, CocoInstances):
        raise UserError(f"measure=targets needs a COCO instance set, not {data.name}")
    numbers = [int(source.chosen[index % len(source)]) for index in range(samples)]
    annotations = source.annotations
    peer = coco.COCO(str(annotations.path))
    images = CocoDetection(str(source.folder), str(annotations.path))
    entries = [
        (images._load_target(image_id), *map(int, annotations.sizes[number]))
        for number, image_id in ((n, int(annotations.image_ids[n])) for n in numbers)
    ]
    seconds = alternate(
        {
            "ours": partial(_decode_ours, source, numbers),
            "peer": partial(_decode_peer, entries),
        },
        rounds,
    )
    ours = [source.annotations.masks(number) for number in numbers]
    theirs = [
        [peer.annToMask(entry) for entry in sorted(targets, key=lambda entry: entry["id"])]
        for targets, _, _ in entries
    ]
    equal = all(
        len(a) == len(b) and all((x == y).all() for x, y in zip(a, b, strict=True))
        for a, b in zip(ours, theirs, strict=True)
    )
    instances = sum(len(masks) for masks in ours)
    return [
        {
            "data set": data.name,
            "images": samples,
            "instances": instances,
            "segtrain targets/s": samples / statistics.median(seconds["ours"]),
            "torchvision targets/s": samples / statistics.median(seconds["peer"]),
            "segtrain is faster by": median_ratio(seconds["peer"], seconds["ours"]),
            "masks are pycocotools'": str(equal),
        }
    ]


def _decode_ours(source: CocoInstances, numbers: list[int]) -> None:
    for number in numbers:
        torch.from_numpy(source.annotations.masks(number))


def _decode_peer(entries: list[tuple[list[dict], int, int]]) -> None:
    for targets, height, width in entries:
        masks = []
        for entry in targets:
            codes = rle.frPyObjects(entry["segmentation"], height, width)
            mask = rle.decode(codes)
            mask = mask if mask.ndim == 3 else mask[..., None]
            masks.append(torch.as_tensor(mask, dtype=torch.uint8).any(dim=2))
        if masks:
            torch.stack(masks, dim=0)
