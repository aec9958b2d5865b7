"""Which ImageNet weights a backbone starts from, and how they want their image."""

from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlparse

import torch
from torch import Tensor

from segtrain.architecture.weights import not_fetched, read_state_dict


class Flavour(NamedTuple):
    """What a set of weights was trained on: (image / 255 - mean) / std.

    Attributes:
        mean, std: of red, green and blue in 0..1.
        bgr: whether the first kernel's channels are blue, green, red. They are turned round when
            they are loaded, so that the network takes RGB.
        url: of a state dict, whose name ends with the start of its SHA-256.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    bgr: bool = False
    url: str = ""


# What MMSegmentation has of the authors', by the ends of the files' names: SegFormer's Mix
# Transformers B0 to B5, under NVIDIA's licence for non-commercial use, and PIDNet S, M, L.
MMSEG = "https://download.openmmlab.com/mmsegmentation/v0.5/pretrain/"
MIX_TRANSFORMERS = ("7e0fe6dd", "02e5a6a1", "66e8bf70", "13b1141c", "d588d980", "658746d9")
PIDNETS = {"s": "715e6273", "m": "39893c52", "l": "67889109"}
TORCHVISION = Flavour((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
FLAVOURS = {
    # VGG_ILSVRC_16_layers.caffemodel, mean as in the nets of FCN's release, as J. Johnson's
    # github.com/jcjohnson/pytorch-vgg converts it; another conversion, vgg16_from_caffe.pth of
    # github.com/wkentaro/pytorch-fcn, has MD5 aa75b158f4181e7f6230029eb96c1b13.
    "vgg16_caffe": Flavour(
        mean=(122.67892 / 255, 116.66877 / 255, 104.00699 / 255),
        std=(1 / 255, 1 / 255, 1 / 255),
        bgr=True,
        url="https://web.eecs.umich.edu/~justincj/models/vgg16-00b39a1b.pth",
    ),
    **{
        f"mit_b{size}": TORCHVISION._replace(
            url=f"{MMSEG}segformer/mit_b{size}_20220624-{digest}.pth"
        )
        for size, digest in enumerate(MIX_TRANSFORMERS)
    },
    **{
        f"pidnet_{size}": TORCHVISION._replace(
            url=f"{MMSEG}pidnet/pidnet-{size}_imagenet1k_20230306-{digest}.pth"
        )
        for size, digest in PIDNETS.items()
    },
}


def flavour_of(weights: str) -> tuple[Flavour, str]:
    """The flavour that `weights` names, and what is left: `imagenet`, `none` or a file.

    `vgg16_caffe` fetches its weights, `vgg16_caffe:<file>` reads them, `vgg16_caffe:none` takes
    their image alone; whatever names no flavour is torchvision's.
    """
    name, separator, rest = weights.partition(":")
    if name not in FLAVOURS:
        return TORCHVISION, weights
    return FLAVOURS[name], rest if separator else "imagenet"


def untrained(weights: str) -> str:
    """The `weights` of the same flavour that fetch and read nothing."""
    name = weights.partition(":")[0]
    return f"{name}:none" if name in FLAVOURS else "none"


def flavour_file(weights: str) -> Path:
    """Where a flavour's download is kept: torch's folder of downloads."""
    return Path(torch.hub.get_dir(), "checkpoints", Path(urlparse(FLAVOURS[weights].url).path).name)


def fetch_flavour(weights: str) -> dict[str, Tensor]:
    """State dict of a flavour from its address, or from torch's folder of downloads.

    Raises:
        UserError: it cannot be fetched.
    """
    url, file = FLAVOURS[weights].url, flavour_file(weights)
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, file, hash_prefix=file.stem.rpartition("-")[2])
        except (OSError, RuntimeError) as error:
            named = f"{weights}:<file>" if FLAVOURS[weights].bgr else "<file>"
            raise not_fetched(weights, error, f"{named}, of {url}") from error
    return read_state_dict(file)
