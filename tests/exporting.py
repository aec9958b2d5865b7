"""Small exports of annotation tools, and what the data sets read of them once converted."""

import base64
import json
import zlib
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


def cvat_video(root):
    for frame in range(6):
        picture(root / f"images/frame_{frame:06}.png")
    track = """<track id="0" label="bolt">
    <box frame="0" outside="0" keyframe="1" xtl="0" ytl="0" xbr="10" ybr="10"/>
    <box frame="4" outside="1" keyframe="1" xtl="40" ytl="0" xbr="50" ybr="10"/></track>"""
    write(root / "annotations.xml", CVAT.format(track))
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


def stroke_code(mask):
    """Label Studio's code of a mask: the first values one by one, then runs of up to 256."""
    values = np.repeat(np.where(mask, 255, 0).ravel(), 4).tolist()
    bits = f"{len(values):032b}{7:05b}" + "".join(f"{size - 1:04b}" for size in (3, 4, 8, 16))
    bits += "0" + "00" + f"{4 - 1:03b}" + "".join(f"{value:08b}" for value in values[:4])
    start = 4
    while start < len(values):
        end = start + 1
        while end < len(values) and values[end] == values[start] and end - start < 256:
            end += 1
        bits += "1" + "10" + f"{end - start - 1:08b}" + f"{values[start]:08b}"
        start = end
    bits += "0" * (-len(bits) % 8)
    return [int(bits[place : place + 8], 2) for place in range(0, len(bits), 8)]


def label_studio(root, **changes):
    picture(root / "a.jpg")
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[40:44, 60:66] = True
    values = [
        {"points": [[25, 50], [50, 50], [50, 100], [25, 100]], "polygonlabels": ["bolt"]},
        {"x": 0, "y": 0, "width": 25, "height": 25, "rotation": 0, "rectanglelabels": ["nut"]},
        {"x": 75, "y": 25, "radiusX": 5, "radiusY": 10, "ellipselabels": ["nut"]},
        {"format": "rle", "rle": stroke_code(mask), "brushlabels": ["bolt"]},
        {"x": 5, "y": 5, "width": 1, "keypointlabels": ["nut"]},
        {"points": [[0, 0], [9, 0], [9, 9]]},
        {"points": [[0, 0], [9, None], [9, 9]], "polygonlabels": ["nut"]},
    ]  # fmt: skip
    size = {"original_width": WIDTH, "original_height": HEIGHT, "image_rotation": 0}
    results = [{"id": str(number), **size, "value": v} for number, v in enumerate(values)]
    tasks = [
        {"id": 7, "data": {"image": "/data/upload/3/ab12cd34-a.jpg"},
         "annotations": [{"was_cancelled": False, "result": results}]},
        {"id": 8, "data": {"image": "b.jpg"}, "annotations": []},
    ]  # fmt: skip
    write(root / "project.json", [{**tasks[0], **changes}, tasks[1]])
    return root


def via(root, **changes):
    picture(root / "a.jpg")
    shapes = [
        {"name": "polygon", "all_points_x": [20, 40, 40, 20], "all_points_y": [30, 30, 60, 60]},
        {"name": "rect", "x": 0, "y": 0, "width": 20, "height": 15},
        {"name": "circle", "cx": 60, "cy": 40, "r": 6},
        {"name": "ellipse", "cx": 60, "cy": 15, "rx": 10, "ry": 5, "theta": 1.5707963267948966},
        {"name": "polyline", "all_points_x": [1, 2], "all_points_y": [1, 2]},
        {"name": "rect", "x": 0, "y": None, "width": 20, "height": 15},
    ]  # fmt: skip
    labels = ["bolt", {"nut": True, "bolt": False}, "nut", "nut", "nut", "nut"]
    regions = [
        {"shape_attributes": shape, "region_attributes": {"kind": label}}
        for shape, label in zip(shapes, labels, strict=True)
    ]
    entry = {"filename": "a.jpg", "size": 123, "regions": regions, "file_attributes": {}}
    write(root / "via_region_data.json", {"a.jpg123": {**entry, **changes}})
    return root


def supervisely(root, place="ds/ann/a.jpg.json"):
    picture(root / place.replace("/ann/", "/img/").removesuffix(".json"))
    pixels = BytesIO()
    drawn = Image.fromarray(np.eye(4, 6, dtype=np.uint8)).convert("P")
    drawn.save(pixels, "PNG", transparency=0)
    data = base64.b64encode(zlib.compress(pixels.getvalue())).decode()
    square = [[20, 30], [39, 30], [39, 59], [20, 59]]
    objects = [
        {"classTitle": "bolt", "geometryType": "polygon",
         "points": {"exterior": square, "interior": [[[25, 40], [30, 40], [30, 44], [25, 44]]]}},
        {"classTitle": "nut", "geometryType": "rectangle",
         "points": {"exterior": [[19, 14], [0, 0]], "interior": []}},
        {"classTitle": "nut", "geometryType": "bitmap",
         "bitmap": {"data": data, "origin": [60, 40]}},
        {"classTitle": "nut", "geometryType": "line",
         "points": {"exterior": [[1, 1], [2, 2]], "interior": []}},
        {"classTitle": "nut", "geometryType": "polygon", "points": {"exterior": [["x", 1]]}},
    ]  # fmt: skip
    write(root / place, {"size": {"height": HEIGHT, "width": WIDTH}, "objects": objects})
    write(root / "meta.json", {"classes": [{"title": "nut"}, {"title": "bolt"}, {"title": "x"}]})
    return root
