"""Label sets of the data sets that have fixed classes."""

from segtrain.contracts import LabelSet
from segtrain.dataset.shapes import CLASSES as SHAPES_CLASSES

VOC_CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair",
    "cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa",
    "train", "tvmonitor",
)  # fmt: skip

CAMVID_CLASSES = (
    "sky", "building", "pole", "road", "pavement", "tree", "sign_symbol", "fence", "car",
    "pedestrian", "bicyclist",
)  # fmt: skip

CAMVID_PALETTE = (
    (128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (0, 0, 192), (128, 128, 0),
    (192, 128, 128), (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192),
)  # fmt: skip


def voc_colour_map(count: int) -> tuple[tuple[int, int, int], ...]:
    """The first `count` RGB colours of the VOC development kit (bits of the index, reversed)."""
    colours = []
    for index in range(count):
        channels = [0, 0, 0]
        for bit in range(8):
            for channel in range(3):
                channels[channel] |= ((index >> (3 * bit + channel)) & 1) << (7 - bit)
        colours.append((channels[0], channels[1], channels[2]))
    return tuple(colours)


def contiguous(names: tuple[str, ...], void: int) -> dict[int, int | None]:
    """Raw values 0..K-1 are the train ids; one more value is void."""
    return {**{index: index for index in range(len(names))}, void: None}


VOC = LabelSet(VOC_CLASSES, voc_colour_map(21), contiguous(VOC_CLASSES, void=255))
CAMVID = LabelSet(CAMVID_CLASSES, CAMVID_PALETTE, contiguous(CAMVID_CLASSES, void=11))
SHAPES = LabelSet(
    SHAPES_CLASSES, voc_colour_map(len(SHAPES_CLASSES)), contiguous(SHAPES_CLASSES, void=255)
)
