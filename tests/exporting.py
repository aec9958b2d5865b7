"""Small exports of annotation tools, and what the data sets read of them once converted."""

import base64
import json
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from segtrain.dataset.coco_json import (
    coco_json,
    coco_json_instances,
    instance_labels,
    painted_labels,
)
from segtrain.prepare.exports.recognise import read_export
from segtrain.prepare.exports.write import write_export

HEIGHT, WIDTH = 60, 80


def picture(path, size=(WIDTH, HEIGHT)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (90, 120, 60)).save(path)


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text if isinstance(text, str) else json.dumps(text))


class Converted:
    """What the data sets read of a converted export."""

    def __init__(self, source, target, images=None):
        self.export = read_export(Path(source), images)
        write_export(self.export, target, 0.5, 1)
        root = str(target)
        self.classes = instance_labels(root, None, None).names
        self.labels = painted_labels(root, None, None)
        self.masks, self.objects, self.splits = {}, {}, {}
        for path in sorted(target.glob("*.json")):
            arguments = (None, None, 0.5, 1)
            maps = coco_json(root, path.stem, self.labels, *arguments)
            found = coco_json_instances(
                root, path.stem, instance_labels(root, None, None), *arguments, []
            )
            names = [maps.name(i).removeprefix("images/") for i in range(len(maps))]
            self.splits[path.stem] = names
            for i, name in enumerate(names):
                self.masks[name] = maps.read(i)[1]
                self.objects[name] = found.read(i)[1]

    def found(self, name):
        """Class name and pixels of each object of an image."""
        target = self.objects[name]
        return [(self.classes[label], int(mask.sum()))
                for label, mask in zip(target["labels"], target["masks"], strict=True)]  # fmt: skip


def yolo(root, yaml="path: .\ntrain: images/train\nval: images/val\nnames: {0: bolt, 1: nut}\n"):
    for split in ("train", "val"):
        picture(root / f"images/{split}/a.jpg")
    write(root / "data.yaml", yaml)
    write(root / "labels/train/a.txt", "0 0.25 0.5 0.5 0.5 0.5 1 0.25 1\n\n1 0.5 0 1 0 1 0.25\n")
    return root


def labelme(root, name="a", **changes):
    picture(root / f"{name}.jpg")
    pixels = BytesIO()
    Image.fromarray(np.full((4, 6), 255, np.uint8)).save(pixels, "PNG")
    square = [[2, 2], [11, 2], [11, 11], [2, 11]]
    shapes = [
        {"label": "bolt", "points": square, "shape_type": "polygon", "group_id": 3},
        {"label": "bolt", "points": [[2, 20], [11, 29]], "shape_type": "rectangle", "group_id": 3},
        {"label": "nut", "points": [[40, 30], [45, 30]], "shape_type": "circle"},
        {"label": "nut", "points": [[60, 40], [65, 43]], "shape_type": "mask",
         "mask": base64.b64encode(pixels.getvalue()).decode()},
        {"label": "__ignore__", "points": [[70, 0], [79, 9]], "shape_type": "rectangle"},
        {"label": "_background_", "points": [[2, 2], [5, 5]], "shape_type": "rectangle"},
        {"label": "edge", "points": [[1, 1], [9, 9]], "shape_type": "line"},
        {"label": "", "points": square, "shape_type": "polygon"},
        {"label": "bolt", "points": [[0, 0], [float("nan"), 5], [5, 5]]},
        {"label": "bolt", "points": [[200, 200], [210, 200], [210, 210]]},
    ]  # fmt: skip
    content = {"version": "5.4.1", "imagePath": f"{name}.jpg", "imageData": None,
               "imageHeight": HEIGHT, "imageWidth": WIDTH, "shapes": shapes}  # fmt: skip
    write(root / f"{name}.json", {**content, **changes})
    return root


CVAT = """<?xml version="1.0" encoding="utf-8"?><annotations><version>1.1</version><meta><task>
<labels><label><name>bolt</name></label><label><name>nut</name></label></labels></task></meta>{}
</annotations>"""


CVAT_SHAPES = """
<polygon label="bolt" points="10,10;20,10;20,20;10,20" z_order="1" group_id="4"/>
<box label="bolt" xtl="40" ytl="10" xbr="50" ybr="20" z_order="1" group_id="4"/>
<box label="nut" xtl="0" ytl="0" xbr="30" ybr="30" z_order="0"/>
<mask label="nut" rle="2, 3, 5" left="60" top="20" width="5" height="2" z_order="0"/>
<ellipse label="nut" cx="60" cy="45" rx="10" ry="5" rotation="90" z_order="0"/>
<box label="nut" xtl="1" ytl="40" xbr="21" ybr="44" rotation="90" z_order="0"/>
<polyline label="nut" points="1,2;3,4"/><tag label="nut"/>
<mask label="nut" rle="2, 3" left="60" top="20" width="5" height="2"/>
<polygon label="" points="1,2;3,4;6,5"/>"""


def cvat(root, shapes=CVAT_SHAPES, **attributes):
    picture(root / "images/sub/a.jpg")
    told = {"name": "sub/a.jpg", "width": WIDTH, "height": HEIGHT, **attributes}
    text = " ".join(f'{key}="{value}"' for key, value in told.items())
    write(root / "annotations.xml", CVAT.format(f"<image id='0' {text}>{shapes}</image>"))
    return root


def coco(root, name="train/_annotations.coco.json", first=0, **image):
    picture(root / name.replace(name.split("/")[-1], "a.jpg"))
    square = [[5, 5, 15, 5, 15, 15, 5, 15]]
    write(root / name, {
        "images": [{"id": 0, "file_name": "a.jpg", "width": WIDTH, "height": HEIGHT, **image}],
        "annotations": [
            {"id": 0, "image_id": 0, "category_id": first + 1, "segmentation": square},
            {"id": 1, "image_id": 0, "category_id": first + 2, "segmentation": [],
             "bbox": [1, 1, 5, 5]},
            {"id": 2, "image_id": 0, "category_id": 99, "segmentation": square},
            {"id": 3, "image_id": 0, "category_id": first + 2, "segmentation": square[0][:5]},
            {"id": 4, "image_id": 0, "category_id": first + 1, "iscrowd": 1,
             "segmentation": {"size": [HEIGHT, WIDTH], "counts": [0, 60, HEIGHT * WIDTH - 60]}},
        ],
        "categories": [{"id": first, "name": "hardware", "supercategory": "none"},
                       {"id": first + 1, "name": "bolt", "supercategory": "hardware"},
                       {"id": first + 2, "name": "nut", "supercategory": "hardware"}],
    })  # fmt: skip
    return root
