"""Labels as they lie in shards.

A mask is its train ids, or the bytes of each pixel, row by row, compressed by zlib: against the
masks' own PNG files that read two to four times as fast and was a third smaller. Instances are JSON
with COCO's run-length codes, of runs along the rows: COCO's own go down the columns, and would have
to be transposed to be read.
"""

import json
import zlib

import numpy as np
from pycocotools import mask as rle

from segtrain.contracts import InstanceTarget
from segtrain.masks import encode

MASK_MEMBER = "trainids.zlib"
INSTANCES_MEMBER = "instances.json"
LEVEL = 9  # reads the fastest and is the smallest


def encode_mask(mask: np.ndarray) -> bytes:
    """Of a mask (H, W) or (H, W, B) uint8."""
    return zlib.compress(np.ascontiguousarray(mask), LEVEL)


def decode_mask(data: bytes, size: tuple[int, int]) -> np.ndarray:
    """The mask (H, W) or (H, W, B) uint8 of an image of `size` (H, W)."""
    values = np.frombuffer(bytearray(zlib.decompress(data)), np.uint8)
    return values.reshape(size if values.size == size[0] * size[1] else (*size, -1))


def encode_instances(target: InstanceTarget) -> bytes:
    """Of the instances of one image."""
    by_row = target["masks"].transpose(0, 2, 1)
    content = {
        "image_id": int(target["image_id"]),
        "size": list(by_row.shape[1:]),
        "labels": target["labels"].tolist(),
        "boxes": target["boxes"].tolist(),
        "crowd": target["crowd"].tolist(),
        "area": target["area"].tolist(),
        "masks": [code.decode() for code in encode(by_row)],
    }
    return json.dumps(content, separators=(",", ":")).encode()


def decode_instances(data: bytes) -> InstanceTarget:
    """The instances, exactly as they were."""
    content = json.loads(data)
    size = content["size"]  # width, height
    codes = [{"size": size, "counts": code.encode()} for code in content["masks"]]
    masks = rle.decode(codes).transpose(2, 1, 0) if codes else np.zeros((0, *size[::-1]), np.uint8)
    return {
        "boxes": np.array(content["boxes"], np.float32).reshape(-1, 4),
        "labels": np.array(content["labels"], np.int64),
        "masks": masks,
        "crowd": np.array(content["crowd"], bool),
        "area": np.array(content["area"], np.float32),
        "image_id": content["image_id"],
    }
