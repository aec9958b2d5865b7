"""What `data=` names, in every layout that people and tools have: the label maps that are read."""

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from conftest import composed
from panoptic_sets import write_set
from PIL import Image
from pycocotools import mask as rle

from segtrain.assembly import build_data
from segtrain.errors import UserError
from segtrain.prepare.recognition import recognise

NAMES = ("ground", "disc", "bar")
COLOURS = ((10, 20, 30), (250, 50, 83), (51, 221, 255))
STEMS = ("a", "b", "c", "d", "e", "f")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SEGTRAIN_CACHE", str(tmp_path / "cache"))


def label_map(stem: str) -> np.ndarray:
    """(8, 10) class numbers, all three in every map."""
    labels = np.random.default_rng(ord(stem)).integers(0, 3, (8, 10), dtype=np.uint8)
    labels[0, :3] = [0, 1, 2]
    return labels


def photograph(stem: str) -> Image.Image:
    pixels = np.random.default_rng(ord(stem) + 99).integers(0, 255, (8, 10, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def drawn(labels: np.ndarray, kind: str) -> Image.Image:
    """A label map as tools write it."""
    if kind == "colours":
        return Image.fromarray(np.array(COLOURS, np.uint8)[labels])
    if kind == "alpha":
        return Image.fromarray(np.array(COLOURS, np.uint8)[labels]).convert("RGBA")
    if kind == "palette":
        picture = Image.fromarray(labels)
        picture.putpalette(np.array(COLOURS, np.uint8).ravel().tolist())
        return picture
    if kind == "wide":
        return Image.fromarray(labels.astype(np.uint16) * 1000)
    return Image.fromarray(labels)


def save(picture: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)


def read_maps(root: Path) -> tuple[dict[str, np.ndarray], tuple[str, ...], dict[str, set[str]]]:
    """Label map of every image by its stem, names of the classes, and the stems of each split."""
    found, splits = {}, {}
    data = build_data(composed(*recognise(str(root), False).overrides))
    for split in ("train", "val"):
        source = data.source(split)
        for index in range(len(source)):
            stem = Path(source.name(index)).stem
            found[stem] = source.read(index)[1]
            splits.setdefault(split, set()).add(stem)
    return found, data.labels.names, splits


def assert_read(root: Path, names: tuple[str, ...] | None = NAMES, stems=STEMS) -> dict:
    maps, read_names, splits = read_maps(root)
    assert set(maps) == set(stems)
    for stem in stems:
        assert np.array_equal(maps[stem], label_map(stem[-1])), stem
    if names is not None:
        assert read_names == names
    return splits


# Where the image and the mask of a stem lie.
PLACES = {
    "images, masks": ("images/{}.png", "masks/{}.png"),
    "nested": ("images/north/{}.png", "masks/north/{}.png"),
    "labels": ("images/{}.jpg.png", "labels/{}.jpg.png"),
    "annotations": ("img/{}.png", "annotations/{}.png"),
    "upper case": ("Images/{}.png", "Masks/{}.png"),
    "VOC devkit": ("JPEGImages/{}.png", "SegmentationClass/{}.png"),
    "suffix beside": ("{}.png", "{}_mask.png"),
    "dash beside": ("{}.png", "{}-mask.png"),
    "suffix in folder": ("images/{}.png", "masks/{}_gt.png"),
    "prefixes": ("images/image_{}.png", "masks/gt_{}.png"),
    "folder of images at the root": ("{}.png", "gt/{}.png"),
    "image folder only": ("photos/{}.png", "photos/{}_label.png"),
}
LISTS = {
    "plain": ("classes.txt", "".join(f"{name}\n" for name in NAMES), "numbers"),
    "numbered": ("classes.txt", "0 ground\n1 disc\n2 bar\n", "numbers"),
    "coloured": ("classes.txt", "10,20,30 ground\n250,50,83 disc\n51,221,255 bar\n", "colours"),
    "coloured, alpha": ("classes.txt", "10,20,30 ground\n250,50,83 disc\n51,221,255 bar\n",
                        "alpha"),
    "CVAT": ("labelmap.txt", "ground:10,20,30::\ndisc:250,50,83::\nbar:51,221,255::\n", "colours"),
    "CVAT, palette": ("labelmap.txt", "ground:10,20,30::\ndisc:250,50,83::\nbar:51,221,255::\n",
                      "palette"),
    "16 bits": ("classes.txt", "0 ground\n1000 disc\n2000 bar\n", "wide"),
    "Roboflow": ("_classes.csv", "Pixel Value, Class\n0, ground\n1, disc\n2, bar\n", "numbers"),
    "CSV of colours": ("labelmap.csv", "name,r,g,b\nground,10,20,30\ndisc,250,50,83\n"
                       "bar,51,221,255\n", "colours"),
    "CSV of colours, numbers": ("labelmap.csv", "name,r,g,b\nground,10,20,30\ndisc,250,50,83\n"
                                "bar,51,221,255\n", "numbers"),
    "Datumaro": ("dataset_meta.json", json.dumps({
        "label_map": {str(n): name for n, name in enumerate(NAMES)},
        "segmentation_colors": COLOURS}), "colours"),
    "Supervisely": ("obj_class_to_machine_color.json",
                    json.dumps({name: [n] * 3 for n, name in enumerate(NAMES)}), "machine"),
    "names": ("class_names.txt", "".join(f"{name}\n" for name in NAMES), "numbers"),
}  # fmt: skip


def machine(labels: np.ndarray) -> Image.Image:
    return Image.fromarray(np.repeat(labels[..., None], 3, 2))


@pytest.mark.parametrize("listing", LISTS)
@pytest.mark.parametrize("place", PLACES)
def test_every_place_with_every_list(tmp_path, place, listing):
    root = tmp_path / "set"
    file, text, kind = LISTS[listing]
    for stem in STEMS:
        image, mask = (pattern.format(stem) for pattern in PLACES[place])
        save(photograph(stem), root / image)
        labels = label_map(stem)
        save(machine(labels) if kind == "machine" else drawn(labels, kind), root / mask)
    (root / file).write_text(text)
    stems = tuple(Path(PLACES[place][0].format(stem)).stem for stem in STEMS)
    if place == "labels":
        stems = tuple(f"{stem}.jpg" for stem in STEMS)
        maps, names, _ = read_maps(root)
        assert names == NAMES
        assert all(np.array_equal(maps[f"{s}.jpg"], label_map(s)) for s in STEMS)
        return
    assert_read(root, stems=stems)


# Where the split stands in the paths.
SPLITS = {
    "split first": ("{split}/images/{stem}.png", "{split}/masks/{stem}.png"),
    "split last": ("images/{split}/{stem}.png", "masks/{split}/{stem}.png"),
    "SegNet": ("{split}/{stem}.png", "{split}annot/{stem}.png"),
    "Roboflow": ("{split}/{stem}_jpg.rf.0af.png", "{split}/{stem}_jpg.rf.0af_mask.png"),
}


@pytest.mark.parametrize("val", ["val", "valid", "validation"])
@pytest.mark.parametrize("place", SPLITS)
def test_splits_as_folders(tmp_path, place, val):
    if place == "SegNet" and val != "val":
        pytest.skip("SegNet's folders are called val")
    root = tmp_path / "set"
    for number, stem in enumerate(STEMS):
        where = {"split": "train" if number < 4 else val, "stem": stem}
        save(photograph(stem), root / SPLITS[place][0].format(**where))
        save(drawn(label_map(stem), "numbers"), root / SPLITS[place][1].format(**where))
    (root / "classes.txt").write_text("\n".join(NAMES))
    maps, names, splits = read_maps(root)
    assert names == NAMES
    assert {split: {stem[0] for stem in stems} for split, stems in splits.items()} == {
        "train": set("abcd"), "val": set("ef")}  # fmt: skip
    for stem, labels in maps.items():
        assert np.array_equal(labels, label_map(stem[0]))


@pytest.mark.parametrize("folder", ["", "splits", "ImageSets/Segmentation"])
def test_splits_as_lists(tmp_path, folder):
    root = tmp_path / "set"
    for stem in STEMS:
        save(photograph(stem), root / f"JPEGImages/{stem}.png")
        save(drawn(label_map(stem), "numbers"), root / f"SegmentationClass/{stem}.png")
    (root / folder).mkdir(parents=True, exist_ok=True)
    (root / folder / "train.txt").write_text("a\nb\nc\n")
    (root / folder / "val.txt").write_text("d\ne\n")
    (root / "classes.txt").write_text("\n".join(NAMES))
    _, _, splits = read_maps(root)
    assert splits == {"train": set("abc"), "val": set("de")}


ONE_A_CLASS = {
    "folder of the image": "masks/{stem}/{name}.png",
    "folder of the class": "masks/{name}/{stem}.png",
    "suffix": "masks/{stem}_{name}.png",
}


@pytest.mark.parametrize("place", ONE_A_CLASS)
def test_one_mask_a_class(tmp_path, place):
    root = tmp_path / "set"
    for stem in STEMS:
        save(photograph(stem), root / f"images/{stem}.png")
        for name, number in (("bar", 1), ("disc", 2)):
            mask = Image.fromarray(np.where(label_map(stem) == number, 255, 0).astype(np.uint8))
            save(mask, root / ONE_A_CLASS[place].format(stem=stem, name=name))
    assert_read(root, ("background", "bar", "disc"))


def test_masks_of_two_classes_overlap(tmp_path):
    """The later name lies on top."""
    root = tmp_path / "set"
    for stem in STEMS:
        save(photograph(stem), root / f"images/{stem}.png")
        for name, rows in (("first", 4), ("second", 2)):
            mask = np.zeros((8, 10), np.uint8)
            mask[:rows] = 255
            save(Image.fromarray(mask), root / f"masks/{stem}/{name}.png")
    maps, _, _ = read_maps(root)
    assert maps["a"][:, 0].tolist() == [2, 2, 1, 1, 0, 0, 0, 0]


def test_what_has_no_partner_is_told(tmp_path, caplog):
    root = tmp_path / "set"
    for stem in STEMS:
        save(photograph(stem), root / f"photos/{stem}.png")
        save(drawn(label_map(stem), "numbers"), root / f"masks/{stem}_mask.png")
    for number in range(7):
        save(photograph("a"), root / f"photos/plain{number}.png")
    save(drawn(label_map("a"), "numbers"), root / "masks/lonely_mask.png")
    maps, _, _ = read_maps(root)
    assert sorted(maps) == sorted(STEMS)
    assert "7 without a mask left out: plain0.png, plain1.png" in caplog.text
    assert "... 2 more" in caplog.text
    assert "1 without an image left out: lonely_mask.png" in caplog.text


def test_without_a_list_classes_are_called_after_their_values(tmp_path, caplog):
    caplog.set_level("INFO")
    for kind, names in {
        "numbers": ("class_0", "class_1", "class_2"),
        "colours": ("#0a141e", "#33ddff", "#fa3253"),
    }.items():
        root = tmp_path / kind
        for stem in STEMS:
            save(photograph(stem), root / f"images/{stem}.png")
            save(drawn(label_map(stem), kind), root / f"masks/{stem}.png")
        maps, read_names, _ = read_maps(root)
        assert read_names == names
        if kind == "numbers":
            assert np.array_equal(maps["b"], label_map("b"))
        else:
            assert np.array_equal(maps["b"], np.array([0, 2, 1])[label_map("b")])
        assert f"no list in {root}" in caplog.text


def test_black_and_white_masks_without_a_list(tmp_path):
    root = tmp_path / "set"
    for stem in STEMS:
        save(photograph(stem), root / f"{stem}.png")
        mask = np.where(label_map(stem) == 1, 255, 0).astype(np.uint8)
        save(Image.fromarray(mask), root / f"{stem}_mask.png")
    maps, names, _ = read_maps(root)
    assert names == ("background", "foreground")
    assert np.array_equal(maps["c"], label_map("c") == 1)


def coco_json(root: Path) -> None:
    """The label maps as COCO's run-length codes, one object a class."""
    images, annotations = [], []
    for number, stem in enumerate(STEMS, 1):
        save(photograph(stem), root / f"images/{stem}.png")
        images.append({"id": number, "file_name": f"{stem}.png", "height": 8, "width": 10})
        for category in (1, 2):
            code = rle.encode(np.asfortranarray(label_map(stem) == category, dtype=np.uint8))
            annotations.append({
                "id": len(annotations) + 1, "image_id": number, "category_id": category,
                "iscrowd": 0, "segmentation": {"size": [8, 10], "counts": code["counts"].decode()},
            })  # fmt: skip
    categories = [{"id": 1, "name": "disc"}, {"id": 2, "name": "bar"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "all.json").write_text(json.dumps(content))


def test_a_coco_json_is_read_where_it_lies(tmp_path):
    coco_json(tmp_path / "set")
    for given in (tmp_path / "set", tmp_path / "set" / "all.json"):
        assert_read(given, ("background", "disc", "bar"))
        assert recognise(str(given), True).overrides[0] == "dataset=coco_json_instances"


def test_an_export_is_converted_once(tmp_path, caplog):
    caplog.set_level("INFO")
    root = tmp_path / "set"
    coco_json(root)
    (root / "images").rename(root / "elsewhere")  # no layout of ours
    for _ in range(2):
        assert_read(root, ("background", "disc", "bar"))
    assert caplog.text.count("written") == 1
    (root / "all.json").write_text((root / "all.json").read_text().replace('"disc"', '"ring"'))
    assert_read(root, ("background", "ring", "bar"))
    assert caplog.text.count("written") == 2


def test_archives_are_unpacked(tmp_path):
    coco_json(tmp_path / "set")
    archive = tmp_path / "set.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        for file in sorted((tmp_path / "set").rglob("*")):
            packed.write(file, file.relative_to(tmp_path))
    assert_read(archive, ("background", "disc", "bar"))


def test_archives_that_leave_their_folder_are_refused(tmp_path):
    archive = tmp_path / "set.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("../outside.json", "{}")
    with pytest.raises(UserError, match="outside"):
        recognise(str(archive), False)
    assert not (tmp_path / "outside.json").exists()


def test_names_of_data_sets():
    assert recognise("voc", False).overrides == ["dataset=voc"]
    with pytest.raises(UserError, match="did you mean data=cityscapes"):
        recognise("cityscape", False)
    with pytest.raises(UserError, match="hub"):
        recognise("hf:someone/something", False)


def test_a_folder_of_photographs_alone_is_refused_with_what_was_found(tmp_path):
    for stem in STEMS:
        save(photograph(stem), tmp_path / "set" / f"{stem}.png")
    with pytest.raises(UserError, match=r"(?s)found 6 \.png.*classes\.txt"):
        recognise(str(tmp_path / "set"), False)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("size", "the mask is 5x5"),
        ("value", "mask value 77 is not in the label map"),
        ("truncated", "p?a_mask.png"),
        ("jpeg", "a JPEG as a mask"),
        ("twice", "same name"),
    ],
)
def test_faults_name_the_file(tmp_path, damage, message):
    root = tmp_path / "set"
    for stem in STEMS:
        save(photograph(stem), root / f"{stem}.png")
        save(drawn(label_map(stem), "numbers"), root / f"{stem}_mask.png")
    (root / "classes.txt").write_text("\n".join(NAMES))
    mask = root / "a_mask.png"
    if damage == "size":
        save(Image.new("L", (5, 5)), mask)
    elif damage == "value":
        save(Image.new("L", (10, 8), 77), mask)
    elif damage == "truncated":
        mask.write_bytes(mask.read_bytes()[:-20])
    elif damage == "jpeg":
        mask.unlink()
        save(Image.new("L", (10, 8)), root / "a_mask.jpg")
    else:
        save(photograph("a"), root / "a.jpg")
    with pytest.raises(UserError, match=message):
        recognise(str(root), False)
    assert not list((tmp_path / "cache").rglob("classes.txt"))


def test_a_colour_per_pixel_is_no_list_of_classes(tmp_path):
    root = tmp_path / "set"
    for stem in STEMS:
        save(photograph(stem), root / f"images/{stem}.png")
        save(photograph(stem), root / f"masks/{stem}.png")
    with pytest.raises(UserError, match="over 64 colours"):
        recognise(str(root), False)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"[1]", b'{"label_map": 3}'])
def test_damaged_lists_of_classes(tmp_path, content):
    root = tmp_path / "set"
    for stem in STEMS:
        save(photograph(stem), root / f"images/{stem}.png")
        save(drawn(label_map(stem), "numbers"), root / f"masks/{stem}.png")
    for name in ("_classes.csv", "dataset_meta.json", "class_names.txt"):
        (root / name).write_bytes(content)
        with pytest.raises(UserError, match=name):
            recognise(str(root), False)
        (root / name).unlink()


def test_real_pictures_in_three_forms(real_data, tmp_path):
    """CamVid as colours, and as COCO's run-length codes: the label maps of its own masks."""
    lines = (real_data / "camvid" / "train.txt").read_text().splitlines()[::120]
    pairs = [[real_data / "camvid" / path for path in line.split()] for line in lines if line]
    palette = np.random.default_rng(0).integers(1, 255, (12, 3), dtype=np.uint8)
    images, annotations = [], []
    for number, (image, mask) in enumerate(pairs, 1):
        labels = np.asarray(Image.open(mask))
        content = image.read_bytes()
        for folder in ("colours", "coco"):
            (tmp_path / folder / "images").mkdir(parents=True, exist_ok=True)
            (tmp_path / folder / "images" / image.name).write_bytes(content)
        save(Image.fromarray(palette[labels]), tmp_path / f"colours/masks/{image.stem}.png")
        width, height = Image.open(io.BytesIO(content)).size
        images.append({"id": number, "file_name": image.name, "height": height, "width": width})
        for category in np.unique(labels).tolist():
            code = rle.encode(np.asfortranarray(labels == category, dtype=np.uint8))
            annotations.append({
                "id": len(annotations) + 1, "image_id": number, "category_id": category + 1,
                "segmentation": {"size": [height, width], "counts": code["counts"].decode()},
            })  # fmt: skip
    names = [f"class {number}" for number in range(11)] + ["void"]
    colours = "".join(f"{','.join(map(str, c))} {n}\n" for c, n in zip(palette, names, strict=True))
    (tmp_path / "colours" / "classes.txt").write_text(colours)
    (tmp_path / "coco" / "all.json").write_text(json.dumps({
        "images": images, "annotations": annotations,
        "categories": [{"id": n + 1, "name": name} for n, name in enumerate(names)],
    }))  # fmt: skip
    first, first_names, _ = read_maps(tmp_path / "colours")
    second, second_names, _ = read_maps(tmp_path / "coco")
    number_of = [("background", *first_names).index(name) for name in second_names]
    for image, mask in pairs:
        labels = np.asarray(Image.open(mask))
        expected = np.where(labels == 11, 255, labels)
        assert np.array_equal(first[image.stem], expected)
        told = second[image.stem]
        back = np.append(np.array(number_of) - 1, [254] * (255 - len(number_of)) + [255])[told]
        assert (back == expected).mean() >= 0.999


def test_panoptic_json_is_told_from_that_of_objects(tmp_path):
    root = tmp_path / "yard"
    write_set(root, {"train": ["a", "b"], "val": ["c"]})
    assert recognise(str(root), instances=False).overrides == [
        "dataset=folder_panoptic", f"dataset.source.root={root}"
    ]  # fmt: skip
    (root / "val.json").unlink()
    for given in (root, root / "train.json"):
        overrides = recognise(str(given), instances=False).overrides
        assert overrides[-1] == "dataset.source.annotations=train.json"
        assert len(build_data(composed(*overrides)).source("train")) == 1
    with pytest.raises(UserError, match="panoptic one, which dataset=folder_panoptic reads"):
        build_data(composed("dataset=coco_json", f"dataset.source.root={root}"))


def test_panoptic_annotations_in_cocos_own_layout(tmp_path):
    (tmp_path / "annotations" / "panoptic_val2017").mkdir(parents=True)
    (tmp_path / "annotations" / "panoptic_val2017.json").write_text("{}")
    found = recognise(str(tmp_path), False)
    assert found.overrides == ["dataset=coco_panoptic", f"dataset.source.root={tmp_path}"]
