"""Label sets of the panoptic data sets that have fixed classes: things and stuff."""

from dataclasses import replace

from segtrain.dataset.labels import ADE20K, CITYSCAPES, CITYSCAPES_THINGS, COCO_CLASSES
from segtrain.label_set import LabelSet

COCO_THING_COLOURS = (  # of the 80 classes of `COCO_CLASSES`
    (220, 20, 60), (119, 11, 32), (0, 0, 142), (0, 0, 230), (106, 0, 228), (0, 60, 100),
    (0, 80, 100), (0, 0, 70), (0, 0, 192), (250, 170, 30), (100, 170, 30), (220, 220, 0),
    (175, 116, 175), (250, 0, 30), (165, 42, 42), (255, 77, 255), (0, 226, 252), (182, 182, 255),
    (0, 82, 0), (120, 166, 157), (110, 76, 0), (174, 57, 255), (199, 100, 0), (72, 0, 118),
    (255, 179, 240), (0, 125, 92), (209, 0, 151), (188, 208, 182), (0, 220, 176), (255, 99, 164),
    (92, 0, 73), (133, 129, 255), (78, 180, 255), (0, 228, 0), (174, 255, 243), (45, 89, 255),
    (134, 134, 103), (145, 148, 174), (255, 208, 186), (197, 226, 255), (171, 134, 1),
    (109, 63, 54), (207, 138, 255), (151, 0, 95), (9, 80, 61), (84, 105, 51), (74, 65, 105),
    (166, 196, 102), (208, 195, 210), (255, 109, 65), (0, 143, 149), (179, 0, 194), (209, 99, 106),
    (5, 121, 0), (227, 255, 205), (147, 186, 208), (153, 69, 1), (3, 95, 161), (163, 255, 0),
    (119, 0, 170), (0, 182, 199), (0, 165, 120), (183, 130, 88), (95, 32, 0), (130, 114, 135),
    (110, 129, 133), (166, 74, 118), (219, 142, 185), (79, 210, 114), (178, 90, 62), (65, 70, 15),
    (127, 167, 115), (59, 105, 106), (142, 108, 45), (196, 172, 0), (95, 54, 80), (128, 76, 255),
    (201, 57, 1), (246, 0, 122), (191, 162, 208),
)  # fmt: skip

COCO_MERGED_STUFF = {  # category id -> name, colour; of COCO-Stuff's 91, some merged
    92: ("banner", (255, 255, 128)), 93: ("blanket", (147, 211, 203)),
    95: ("bridge", (150, 100, 100)), 100: ("cardboard", (168, 171, 172)),
    107: ("counter", (146, 112, 198)), 109: ("curtain", (210, 170, 100)),
    112: ("door-stuff", (92, 136, 89)), 118: ("floor-wood", (218, 88, 184)),
    119: ("flower", (241, 129, 0)), 122: ("fruit", (217, 17, 255)), 125: ("gravel", (124, 74, 181)),
    128: ("house", (70, 70, 70)), 130: ("light", (255, 228, 255)),
    133: ("mirror-stuff", (154, 208, 0)), 138: ("net", (193, 0, 92)),
    141: ("pillow", (76, 91, 113)), 144: ("platform", (255, 180, 195)),
    145: ("playingfield", (106, 154, 176)), 147: ("railroad", (230, 150, 140)),
    148: ("river", (60, 143, 255)), 149: ("road", (128, 64, 128)), 151: ("roof", (92, 82, 55)),
    154: ("sand", (254, 212, 124)), 155: ("sea", (73, 77, 174)), 156: ("shelf", (255, 160, 98)),
    159: ("snow", (255, 255, 255)), 161: ("stairs", (104, 84, 109)), 166: ("tent", (169, 164, 131)),
    168: ("towel", (225, 199, 255)), 171: ("wall-brick", (137, 54, 74)),
    175: ("wall-stone", (135, 158, 223)), 176: ("wall-tile", (7, 246, 231)),
    177: ("wall-wood", (107, 255, 200)), 178: ("water-other", (58, 41, 149)),
    180: ("window-blind", (183, 121, 142)), 181: ("window-other", (255, 73, 97)),
    184: ("tree-merged", (107, 142, 35)), 185: ("fence-merged", (190, 153, 153)),
    186: ("ceiling-merged", (146, 139, 141)), 187: ("sky-other-merged", (70, 130, 180)),
    188: ("cabinet-merged", (134, 199, 156)), 189: ("table-merged", (209, 226, 140)),
    190: ("floor-other-merged", (96, 36, 108)), 191: ("pavement-merged", (96, 96, 96)),
    192: ("mountain-merged", (64, 170, 64)), 193: ("grass-merged", (152, 251, 152)),
    194: ("dirt-merged", (208, 229, 228)), 195: ("paper-merged", (206, 186, 171)),
    196: ("food-other-merged", (152, 161, 64)), 197: ("building-other-merged", (116, 112, 0)),
    198: ("rock-merged", (0, 114, 143)), 199: ("wall-other-merged", (102, 102, 156)),
    200: ("rug-merged", (250, 141, 255)),
}  # fmt: skip

ADE20K_THINGS = (  # labels of the classes with instances, by the numbers 1 to 100 of their files
    8, 9, 11, 13, 15, 16, 19, 20, 21, 23, 24, 25, 28, 31, 32, 33, 34, 36, 37, 38, 39, 40, 42, 43,
    44, 45, 46, 48, 50, 51, 54, 56, 57, 58, 59, 63, 65, 66, 67, 68, 70, 71, 72, 73, 74, 75, 76, 77,
    79, 81, 82, 83, 84, 86, 87, 88, 89, 90, 91, 93, 94, 96, 98, 99, 103, 104, 105, 108, 109, 111,
    112, 113, 116, 117, 119, 120, 121, 122, 124, 125, 126, 127, 128, 130, 131, 133, 134, 135, 136,
    137, 138, 139, 140, 143, 144, 145, 147, 148, 149, 150,
)  # fmt: skip

COCO_PANOPTIC = LabelSet(
    (*COCO_CLASSES.values(), *(name for name, _ in COCO_MERGED_STUFF.values())),
    (*COCO_THING_COLOURS, *(colour for _, colour in COCO_MERGED_STUFF.values())),
    {raw: train for train, raw in enumerate((*COCO_CLASSES, *COCO_MERGED_STUFF))},
    things=frozenset(range(len(COCO_CLASSES))),
)
CITYSCAPES_PANOPTIC = replace(
    CITYSCAPES, things=frozenset(CITYSCAPES.raw_to_train[raw] for raw in CITYSCAPES_THINGS)
)
ADE20K_PANOPTIC = replace(ADE20K, things=frozenset(label - 1 for label in ADE20K_THINGS))
