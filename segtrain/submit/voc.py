"""PASCAL VOC's server: palette PNGs in the folders of its development kit."""

from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from segtrain.dataset.labels import VOC, voc_colour_map
from segtrain.submit.packing import check_label_maps, pack_tar, read_tar
from segtrain.submit.submission import SubmittedImage
from segtrain.writing import write_picture

PALETTE = np.array(voc_colour_map(256), np.uint8).tobytes()
COMPETITIONS = ("comp5", "comp6")
# What is VOC's own; SBD labels other images of the same pictures.
OWN_LISTS = ("train", "val", "trainval", "val_without_sbd")


class VocFormat:
    """`results/VOC2012/Segmentation/<competition>_<split>_cls/<id>.png` in a .tar.gz.

    Args:
        competition: comp5 for systems that saw VOC's own data alone, comp6 for all others.
        split: as its list is called.
        name: of the system, for the archive.
    """

    def __init__(self, competition: str, split: str, name: str) -> None:
        self.inside = f"results/VOC2012/Segmentation/{competition}_{split}_cls"
        self.archive = f"voc2012_{split}_{competition}_{name}.tar.gz"

    def write(self, found: Tensor, image: SubmittedImage, folder: Path) -> None:
        """Writes the best class of each pixel, given scores (21, H, W)."""
        picture = Image.fromarray(found.argmax(0).byte().cpu().numpy())
        picture.putpalette(PALETTE)
        write_picture(picture, folder / self._member(image))

    def pack(self, folder: Path, images: list[SubmittedImage], archive: Path) -> None:
        """See `ServerFormat`."""
        pack_tar(archive, folder, map(self._member, images))

    def check(self, archive: Path, images: list[SubmittedImage]) -> None:
        """See `ServerFormat`."""
        expected = {self._member(image): image for image in images}
        check_label_maps(read_tar(archive), expected, PALETTE, range(VOC.num_classes))

    def _member(self, image: SubmittedImage) -> str:
        return f"{self.inside}/{Path(image.name).stem}.png"


def competition_of(trained: list[dict]) -> str:
    """comp5 if networks saw nothing but VOC's own pictures and masks in their training.

    Weights that a network starts from count as other data, whatever they are: VOC's rule for
    comp5 is "only the provided training/validation data".

    Args:
        trained: configurations of the runs.
    """
    for config in trained:
        splits = config["dataset"]["splits"]["train"].split("+")
        if (
            config["dataset"]["name"] != "voc"
            or any(split.removesuffix("_hard") not in OWN_LISTS for split in splits)
            or config["weights"] is not None
            or config["architecture"]["backbone"]["weights"] != "none"
        ):
            return "comp6"
    return "comp5"
