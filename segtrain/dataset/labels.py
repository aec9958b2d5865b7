"""Label sets of the data sets that have fixed classes."""

from segtrain.dataset.shapes import CLASSES as SHAPES_CLASSES
from segtrain.dataset.shapes_panoptic import STUFF as SHAPES_STUFF
from segtrain.dataset.shapes_panoptic import THINGS as SHAPES_THINGS
from segtrain.label_set import LabelSet

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

CITYSCAPES_CLASSES = {  # label id -> name, in the order of the train ids
    7: "road", 8: "sidewalk", 11: "building", 12: "wall", 13: "fence", 17: "pole",
    19: "traffic light", 20: "traffic sign", 21: "vegetation", 22: "terrain", 23: "sky",
    24: "person", 25: "rider", 26: "car", 27: "truck", 28: "bus", 31: "train", 32: "motorcycle",
    33: "bicycle",
}  # fmt: skip
CITYSCAPES_PALETTE = (
    (128, 64, 128), (244, 35, 232), (70, 70, 70), (102, 102, 156), (190, 153, 153), (153, 153, 153),
    (250, 170, 30), (220, 220, 0), (107, 142, 35), (152, 251, 152), (70, 130, 180), (220, 20, 60),
    (255, 0, 0), (0, 0, 142), (0, 0, 70), (0, 60, 100), (0, 80, 100), (0, 0, 230), (119, 11, 32),
)  # fmt: skip
CITYSCAPES_THINGS = (24, 25, 26, 27, 28, 31, 32, 33)  # label ids of the classes with instances

CONTEXT_CLASSES = {  # label of the 459 -> name, in the order of the 59 classes
    2: "aeroplane", 23: "bicycle", 25: "bird", 31: "boat", 34: "bottle", 45: "bus", 59: "car",
    65: "cat", 72: "chair", 98: "cow", 397: "diningtable", 113: "dog", 207: "horse",
    258: "motorbike", 284: "person", 308: "pottedplant", 347: "sheep", 368: "sofa", 416: "train",
    427: "tvmonitor", 9: "bag", 18: "bed", 22: "bench", 33: "book", 44: "building", 46: "cabinet",
    68: "ceiling", 80: "clothes", 85: "computer", 104: "cup", 115: "door", 144: "fence",
    158: "floor", 159: "flower", 162: "food", 187: "grass", 189: "ground", 220: "keyboard",
    232: "light", 259: "mountain", 260: "mouse", 105: "curtain", 296: "platform", 355: "sign",
    295: "plate", 324: "road", 326: "rock", 349: "shelves", 354: "sidewalk", 360: "sky",
    366: "snow", 19: "bedcloth", 415: "track", 420: "tree", 424: "truck", 440: "wall", 445: "water",
    454: "window", 458: "wood",
}  # fmt: skip

COCO_CLASSES = {  # category id -> name
    1: "person", 2: "bicycle", 3: "car", 4: "motorcycle", 5: "airplane", 6: "bus", 7: "train",
    8: "truck", 9: "boat", 10: "traffic light", 11: "fire hydrant", 13: "stop sign",
    14: "parking meter", 15: "bench", 16: "bird", 17: "cat", 18: "dog", 19: "horse", 20: "sheep",
    21: "cow", 22: "elephant", 23: "bear", 24: "zebra", 25: "giraffe", 27: "backpack",
    28: "umbrella", 31: "handbag", 32: "tie", 33: "suitcase", 34: "frisbee", 35: "skis",
    36: "snowboard", 37: "sports ball", 38: "kite", 39: "baseball bat", 40: "baseball glove",
    41: "skateboard", 42: "surfboard", 43: "tennis racket", 44: "bottle", 46: "wine glass",
    47: "cup", 48: "fork", 49: "knife", 50: "spoon", 51: "bowl", 52: "banana", 53: "apple",
    54: "sandwich", 55: "orange", 56: "broccoli", 57: "carrot", 58: "hot dog", 59: "pizza",
    60: "donut", 61: "cake", 62: "chair", 63: "couch", 64: "potted plant", 65: "bed",
    67: "dining table", 70: "toilet", 72: "tv", 73: "laptop", 74: "mouse", 75: "remote",
    76: "keyboard", 77: "cell phone", 78: "microwave", 79: "oven", 80: "toaster", 81: "sink",
    82: "refrigerator", 84: "book", 85: "clock", 86: "vase", 87: "scissors", 88: "teddy bear",
    89: "hair drier", 90: "toothbrush",
}  # fmt: skip

COCO_STUFF_CLASSES = (  # label ids 92 to 182, after the 91 ids of things
    "banner", "blanket", "branch", "bridge", "building-other", "bush", "cabinet", "cage",
    "cardboard", "carpet", "ceiling-other", "ceiling-tile", "cloth", "clothes", "clouds", "counter",
    "cupboard", "curtain", "desk-stuff", "dirt", "door-stuff", "fence", "floor-marble",
    "floor-other", "floor-stone", "floor-tile", "floor-wood", "flower", "fog", "food-other",
    "fruit", "furniture-other", "grass", "gravel", "ground-other", "hill", "house", "leaves",
    "light", "mat", "metal", "mirror-stuff", "moss", "mountain", "mud", "napkin", "net", "paper",
    "pavement", "pillow", "plant-other", "plastic", "platform", "playingfield", "railing",
    "railroad", "river", "road", "rock", "roof", "rug", "salad", "sand", "sea", "shelf",
    "sky-other", "skyscraper", "snow", "solid-other", "stairs", "stone", "straw",
    "structural-other", "table", "tent", "textile-other", "towel", "tree", "vegetable",
    "wall-brick", "wall-concrete", "wall-other", "wall-panel", "wall-stone", "wall-tile",
    "wall-wood", "water-other", "waterdrops", "window-blind", "window-other", "wood",
)  # fmt: skip

ADE20K_CLASSES = (  # labels 1 to 150, by the first of each class's names
    "wall", "building", "sky", "floor", "tree", "ceiling", "road", "bed", "windowpane", "grass",
    "cabinet", "sidewalk", "person", "earth", "door", "table", "mountain", "plant", "curtain",
    "chair", "car", "water", "painting", "sofa", "shelf", "house", "sea", "mirror", "rug", "field",
    "armchair", "seat", "fence", "desk", "rock", "wardrobe", "lamp", "bathtub", "railing",
    "cushion", "base", "box", "column", "signboard", "chest of drawers", "counter", "sand", "sink",
    "skyscraper", "fireplace", "refrigerator", "grandstand", "path", "stairs", "runway", "case",
    "pool table", "pillow", "screen door", "stairway", "river", "bridge", "bookcase", "blind",
    "coffee table", "toilet", "flower", "book", "hill", "bench", "countertop", "stove", "palm",
    "kitchen island", "computer", "swivel chair", "boat", "bar", "arcade machine", "hovel", "bus",
    "towel", "light", "truck", "tower", "chandelier", "awning", "streetlight", "booth",
    "television receiver", "airplane", "dirt track", "apparel", "pole", "land", "bannister",
    "escalator", "ottoman", "bottle", "buffet", "poster", "stage", "van", "ship", "fountain",
    "conveyer belt", "canopy", "washer", "plaything", "swimming pool", "stool", "barrel", "basket",
    "waterfall", "tent", "bag", "minibike", "cradle", "oven", "ball", "food", "step", "tank",
    "trade name", "microwave", "pot", "animal", "bicycle", "lake", "dishwasher", "screen",
    "blanket", "sculpture", "hood", "sconce", "vase", "traffic light", "tray", "ashcan", "fan",
    "pier", "crt screen", "plate", "monitor", "bulletin board", "shower", "radiator", "glass",
    "clock", "flag",
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


def overlapping(names: tuple[str, ...]) -> LabelSet:
    """The set of classes that may overlap; masks show them as planes, see `segtrain.planes`."""
    numbers = {index + 1: index for index in range(len(names))}
    return LabelSet(names, voc_colour_map(len(names) + 1)[1:], numbers, overlapping=True)


VOC = LabelSet(VOC_CLASSES, voc_colour_map(21), contiguous(VOC_CLASSES, void=255))
CAMVID = LabelSet(CAMVID_CLASSES, CAMVID_PALETTE, contiguous(CAMVID_CLASSES, void=11))
SHAPES = LabelSet(
    SHAPES_CLASSES, voc_colour_map(len(SHAPES_CLASSES)), contiguous(SHAPES_CLASSES, void=255)
)
SHAPES_INSTANCES = LabelSet(
    SHAPES_CLASSES[1:], SHAPES.palette[1:], {raw: raw - 1 for raw in range(1, len(SHAPES_CLASSES))}
)
SHAPES_MULTILABEL = overlapping(("object", "shadow"))
SHAPES_BINARY = overlapping(("object",))
SHAPES_PANOPTIC = LabelSet(
    (*SHAPES_THINGS, *SHAPES_STUFF),
    (*SHAPES.palette[1:6], *SHAPES_STUFF.values()),
    contiguous((*SHAPES_THINGS, *SHAPES_STUFF), void=255),
    things=frozenset(range(len(SHAPES_THINGS))),
)

CITYSCAPES = LabelSet(
    tuple(CITYSCAPES_CLASSES.values()),
    CITYSCAPES_PALETTE,
    dict.fromkeys([*range(34), 255]) | {raw: i for i, raw in enumerate(CITYSCAPES_CLASSES)},
)
CITYSCAPES_INSTANCES = LabelSet(
    tuple(CITYSCAPES_CLASSES[raw] for raw in CITYSCAPES_THINGS),
    tuple(CITYSCAPES_PALETTE[CITYSCAPES.raw_to_train[raw]] for raw in CITYSCAPES_THINGS),
    {raw: index for index, raw in enumerate(CITYSCAPES_THINGS)},
)
# 60 classes: what is none of the 59 is background and counts. 59: it is void and counts nowhere.
CONTEXT = LabelSet(
    ("background", *CONTEXT_CLASSES.values()),
    voc_colour_map(60),
    dict.fromkeys(range(460), 0) | {raw: index for index, raw in enumerate(CONTEXT_CLASSES, 1)},
)
CONTEXT_59 = LabelSet(
    tuple(CONTEXT_CLASSES.values()),
    voc_colour_map(60)[1:],
    dict.fromkeys(range(460)) | {raw: index for index, raw in enumerate(CONTEXT_CLASSES)},
)
COCO = LabelSet(
    tuple(COCO_CLASSES.values()),
    voc_colour_map(81)[1:],
    {raw: index for index, raw in enumerate(COCO_CLASSES)},
)
# Labels 1 to 182; 11 ids of things were never annotated. The PNG maps of the 164k images hold the
# label minus one, and 255 where there is none; the MATLAB maps of the 10k images 0 there.
COCO_STUFF_LABELS = (*COCO_CLASSES, *range(92, 183))
COCO_STUFF = LabelSet(
    (*COCO_CLASSES.values(), *COCO_STUFF_CLASSES),
    voc_colour_map(172)[1:],
    {label - 1: index for index, label in enumerate(COCO_STUFF_LABELS)} | {255: None},
)
COCO_STUFF_10K = LabelSet(
    COCO_STUFF.names,
    COCO_STUFF.palette,
    {label: index for index, label in enumerate(COCO_STUFF_LABELS)} | {0: None},
)
ADE20K = LabelSet(
    ADE20K_CLASSES,
    voc_colour_map(151)[1:],
    {label: label - 1 for label in range(1, 151)} | {0: None},
)
