"""Exports damaged in one place: a message that names the file, or what is left is right."""

import json
import math
import random
import re
import shutil

import exporting
import pytest
from pycocotools import mask as rle

from segtrain.dataset.coco_annotations import read_content
from segtrain.dataset.coco_entries import Instance, read_instance
from segtrain.errors import UserError
from segtrain.prepare.exports.recognise import read_export
from segtrain.prepare.exports.write import write_export

# The builder of a small export -> its files of annotations.
EXPORTS = {
    "yolo": ("data.yaml", "labels/train/a.txt"),
    "labelme": ("a.json",),
    "cvat": ("annotations.xml",),
    "cvat_video": ("annotations.xml",),
    "coco": ("train/_annotations.coco.json",),
    "label_studio": ("project.json",),
    "via": ("via_region_data.json",),
    "supervisely": ("ds/ann/a.jpg.json", "meta.json"),
}
VALUES = [None, True, -1, 0.5, 1e308, math.nan, math.inf, 10**400, "", "x", "\0", "../../x.jpg", [],
          [[]], {}, [None], [1e9, -1e9], {"counts": "", "size": []}]  # fmt: skip
TOKENS = ["", "-1", "1e999", "nan", "9" * 5000, "²", "x", "\0", "[", "&a;", "<a>", "\ud7ff", "{}"]
TRIALS = 50


def convert(root, target):
    """Whether the export was converted; what was written is read back."""
    try:
        export = read_export(root, None)
        write_export(export, target, 0.5, 1)
    except UserError as error:
        message = str(error)
    else:
        message = ""
    if message:
        assert str(root) in message or "no object is left to convert" in message
        return False
    for path in target.glob("*.json"):
        content = read_content(path)
        sizes = {image["id"]: (image["height"], image["width"]) for image in content["images"]}
        for entry in content["all"]:
            found = read_instance(entry, *sizes[entry["image_id"]])
            assert isinstance(found, Instance)
            assert found.area == rle.area({"size": sizes[entry["image_id"]][::-1],
                                           "counts": found.code})  # fmt: skip
    shutil.rmtree(target)
    return True


def places(content, place=()):
    """The keys that lead to every value of a JSON document."""
    items = content.items() if isinstance(content, dict) else enumerate(content)
    for key, value in items:
        yield (*place, key)
        if isinstance(value, dict | list):
            yield from places(value, (*place, key))


def damaged_document(text, chance):
    """A document with one value dropped or put in place of another."""
    content = json.loads(text)
    *above, key = chance.choice(list(places(content)))
    holder = content
    for step in above:
        holder = holder[step]
    if chance.random() < 0.2:
        del holder[key]
    else:
        holder[key] = chance.choice(VALUES)
    return json.dumps(content).encode()


def damaged_text(text, chance):
    """A text with one word put in place of another, a line dropped, its end lost or one byte
    changed."""
    way = chance.randrange(4)
    if way == 0:
        word = chance.choice(list(re.finditer(r"[\w.#+-]+", text)))
        return (text[: word.start()] + chance.choice(TOKENS) + text[word.end() :]).encode()
    if way == 1:
        lines = text.splitlines(keepends=True)
        del lines[chance.randrange(len(lines))]
        return "".join(lines).encode()
    data = text.encode()
    place = chance.randrange(len(data))
    added = b"" if way == 2 else bytes([chance.randrange(256)]) + data[place:]
    return data[:place] + added


CASES = [
    (builder, file, damage)
    for builder, files in EXPORTS.items()
    for file in files
    for damage in (damaged_text, damaged_document)
    if damage is damaged_text or file.endswith(".json")
]


@pytest.mark.parametrize(("builder", "file", "damage"), CASES)
def test_one_damage(tmp_path, builder, file, damage):
    root = tmp_path / "in"
    getattr(exporting, builder)(root)
    text = (root / file).read_text()
    assert convert(root, tmp_path / "out")
    chance = random.Random(file)  # the same damages every time
    outcomes = set()
    for _ in range(TRIALS):
        (root / file).write_bytes(damage(text, chance))
        outcomes.add(convert(root, tmp_path / "out"))
    assert True in outcomes
