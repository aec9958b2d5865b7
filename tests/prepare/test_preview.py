import re

import numpy as np
import pytest
from conftest import composed
from PIL import Image

from segtrain.assembly import build_data
from segtrain.dataset.instances import mask_boxes, target_from_masks, training_objects
from segtrain.dataset.labels import SHAPES, SHAPES_PANOPTIC, VOC, contiguous, voc_colour_map
from segtrain.dataset.shapes import render_scene
from segtrain.label_set import LabelSet
from segtrain.prepare.overlay import PICTURE_SIDE, Sample, draw_sample
from segtrain.prepare.preview import write_preview
from segtrain.segments import CROWD, pack


def semantic(name="scene", seed=0, size=(96, 128)):
    scene = render_scene(np.random.default_rng(seed), *size)
    return Sample(name, scene.image, scene.mask)


def with_instances(name="objects", seed=0):
    scene = render_scene(np.random.default_rng(seed), 96, 128)
    return Sample(name, scene.image, objects(scene.instances, scene.labels))


def objects(masks, labels):
    target = target_from_masks(masks, labels, np.zeros(len(masks)), 0)
    return training_objects(target, masks.shape[:0:-1], flip=False)


def uniform(name, height, width, train_id):
    image = np.full((height, width, 3), 90, np.uint8)
    return Sample(name, image, np.full((height, width), train_id, np.uint8))


def write(samples, tmp_path, labels=SHAPES, counts=None, title="shapes"):
    if counts is None:
        counts = np.arange(labels.num_classes + 1, dtype=np.int64) * 1000
    sheet, page = write_preview(samples, labels, counts, title, tmp_path / "deep" / "folder")
    return Image.open(sheet), page.read_text(encoding="utf-8")


def rows(page):
    return re.findall(r"<tr.*?</tr>", page, re.DOTALL)


def test_sheet_and_page_of_a_semantic_set(tmp_path):
    samples = [semantic(f"shapes/train/{seed:06d}", seed) for seed in range(4)]
    sheet, page = write(samples, tmp_path)
    assert sorted(path.name for path in (tmp_path / "deep" / "folder").iterdir()) == [
        "contact_sheet.html", "contact_sheet.png",
    ]  # fmt: skip
    assert sheet.mode == "RGB"
    assert 1600 <= sheet.width <= 2200
    assert sheet.height > 2 * PICTURE_SIDE * 96 / 128  # two rows of tiles
    assert page.count("<figure>") == 4
    for name in (*SHAPES.names, *(sample.name for sample in samples)):
        assert name in page


def test_page_needs_nothing_from_elsewhere(tmp_path):
    _, page = write([semantic()], tmp_path)
    assert "http" not in re.sub(r"base64,[^\"]*", "", page)
    assert "<script" not in page
    sources = re.findall(r'(?:src|href)="([^"]{0,30})', page) + re.findall(r"url\((.*?)\)", page)
    assert len(sources) == 2
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources)


def test_names_are_escaped(tmp_path):
    labels = LabelSet(("<i>road</i>", 'a & "b"'), voc_colour_map(2), contiguous(("", ""), 255))
    _, page = write([uniform("<b>&{0}", 40, 60, 1)], tmp_path, labels, title="<u>{title}")
    for raw in ("<b>&{", "<i>road", "a & ", "<u>"):
        assert raw not in page
    for escaped in (
        "&lt;b&gt;&amp;{0}",
        "&lt;i&gt;road",
        "a &amp; &quot;b&quot;",
        "&lt;u&gt;{title",
    ):
        assert escaped in page


def test_absent_classes_are_marked(tmp_path):
    counts = np.array([10**9, 5, 0, 1234, 0, 1, 1, 1, 0])
    _, page = write([semantic()], tmp_path, counts=counts)
    table = rows(page)
    assert len(table) == SHAPES.num_classes + 1
    absent = [row for row in table if ">absent<" in row]
    assert [name for name in SHAPES.names if any(f">{name}<" in row for row in absent)] == [
        "square", "star",
    ]  # fmt: skip
    assert "8 classes, 2 absent" in page
    assert 'title="triangle: 1,234 pixels, &lt;0.01 %"' in table[3]


def test_instances_are_counted_and_drawn(tmp_path):
    sample = with_instances()
    _, page = write([sample, with_instances("other", 1)], tmp_path)
    kinds, numbers = np.unique(sample.label["labels"], return_counts=True)
    for kind, number in zip(kinds, numbers, strict=True):
        assert f"{number} × {SHAPES.names[kind]} " in page
    assert "× crowd" not in page
    assert "instances per class" in page
    assert "void" not in page
    image, overlay = draw_sample(sample, SHAPES)
    assert image.size == overlay.size == (PICTURE_SIDE, PICTURE_SIDE * 96 // 128)
    changed = (np.asarray(image) != np.asarray(overlay)).any(-1)
    assert len(sample.masks) == len(sample.label["boxes"]) >= 3
    for mask, box in zip(sample.masks, mask_boxes(sample.masks), strict=True):
        left, top, right, bottom = (box * PICTURE_SIDE / 128).astype(int)
        assert changed[(top + bottom) // 2, left]
        assert changed[top, (left + right) // 2]
        inside = np.asarray(Image.fromarray(mask).resize(image.size, Image.Resampling.NEAREST))
        assert changed[inside > 0].mean() > 0.95


def test_overlay_shows_class_colours_void_and_borders():
    mask = np.zeros((PICTURE_SIDE, PICTURE_SIDE), np.uint8)
    mask[:, 150:] = 15
    mask[:, 250:] = 255
    image = np.full((*mask.shape, 3), 100, np.uint8)
    overlay = np.asarray(draw_sample(Sample("", image, mask), VOC)[1])
    for column, train_id in ((50, 0), (200, 15)):
        expected = 0.55 * np.array(VOC.palette[train_id]) + 0.45 * 100
        assert np.abs(overlay[100, column] - expected).max() <= 1
    assert (overlay[100, 149] == 20).all()
    assert (overlay[100, 150] == 255).all()
    assert len(np.unique(overlay[:, 260:])) == 2  # two greys, hatched


@pytest.mark.parametrize(("height", "width"), [(33, 57), (500, 20), (1, 700), (512, 1024)])
def test_odd_sizes(tmp_path, height, width):
    sheet, page = write([uniform("odd", height, width, 3)], tmp_path)
    assert 1600 <= sheet.width <= 2200
    assert f"{width} × {height}" in page


def test_nothing_to_see(tmp_path):
    empty = objects(np.zeros((0, 40, 60), bool), [])
    write([uniform("void", 40, 60, 255)], tmp_path)
    write([uniform("none", 40, 60, 255)._replace(label=empty)], tmp_path)
    _, page = write([], tmp_path, counts=np.zeros(9, np.int64))
    assert "8 classes, 8 absent" in page


def test_many_classes_and_long_names(tmp_path):
    names = tuple(f"{'long-' * (index % 30)}class-{index}" for index in range(171))
    labels = LabelSet(names, voc_colour_map(171), contiguous(names, 255))
    rng = np.random.default_rng(0)
    mask = rng.integers(0, 171, (60, 80)).astype(np.uint8)
    sample = Sample("folder/" * 40, rng.integers(0, 255, (60, 80, 3), np.uint8), mask)
    sheet, page = write([sample], tmp_path, labels)
    assert 1600 <= sheet.width <= 2200
    assert len(rows(page)) == 172
    assert all(f"<td>{name}</td>" in page for name in names)


def test_refuses_what_does_not_fit(tmp_path):
    with pytest.raises(ValueError, match="expected 9 counts"):
        write([semantic()], tmp_path, counts=np.zeros(8, np.int64))
    with pytest.raises(ValueError, match="scene: mask"):
        write([semantic()._replace(label=np.zeros((96, 100), np.uint8))], tmp_path)


def test_things_are_told_apart_and_crowds_striped():
    """One class on the left: two instances and a crowd; stuff and void on the right."""
    classes, numbers = np.zeros((96, 96), np.uint8), np.zeros((96, 96), int)
    classes[:, 48:72], classes[:, 72:] = 5, 255
    numbers[:32, :48], numbers[32:64, :48], numbers[64:, :48] = 1, 2, CROWD
    sample = Sample("one", np.full((96, 96, 3), 90, np.uint8), pack(classes, numbers))
    overlay = np.asarray(draw_sample(sample, SHAPES_PANOPTIC)[1]).astype(int)
    middles = {"first": (16, 24), "second": (48, 24), "crowd": (80, 24), "stuff": (48, 60),
               "void": (48, 84)}  # fmt: skip
    parts = {}
    for name, place in middles.items():
        row, column = (round(side * PICTURE_SIDE / 96) for side in place)
        parts[name] = overlay[row - 20 : row + 20, column - 20 : column + 20]
    plain = {name: part[0, 0] for name, part in parts.items() if (part == part[0, 0]).all()}
    assert plain.keys() == {"first", "second", "stuff"}
    assert len({tuple(colour) for colour in plain.values()}) == 3


@pytest.mark.parametrize("name", ["shapes_panoptic", "shapes_multilabel"])
def test_sheet_of_labels_of_several_bytes(tmp_path, name):
    data = build_data(composed(f"dataset={name}"))
    source = data.source("train")
    samples = [Sample(source.name(index), *source.read(index)) for index in range(2)]
    _, page = write(samples, tmp_path, data.labels, source.class_counts(0))
    for label in np.flatnonzero(source.class_counts(0)[:-1]):
        assert data.labels.names[label] in page
    assert page.count("<figure>") == 2
