"""One's own COCO JSON: what is read, what is derived, and what is refused by file and id."""

import json

import numpy as np
import pytest
from conftest import composed
from PIL import Image
from pycocotools import mask as rle

from segtrain.assembly import build_data
from segtrain.dataset.coco_folder import share_out
from segtrain.errors import UserError

KINDS = ("coco_json", "coco_json_instances")
HEIGHT, WIDTH = 30, 40


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SEGTRAIN_CACHE", str(tmp_path / "cache"))


def square(x, y, side):
    return [[x, y, x + side, y, x + side, y + side, x, y + side]]


def runs(x, y, side):
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[y : y + side, x : x + side] = 1
    flat = mask.ravel(order="F")
    changes = np.flatnonzero(np.diff(flat)) + 1
    return np.diff([0, *changes, flat.size]).tolist()


def content(images=4):
    """Two squares an image, a bolt of 8 pixels and a nut of 10."""
    entries = [
        {
            "id": 2 * i + c, "image_id": i + 1, "category_id": c, "iscrowd": 0, "area": side * side,
            "bbox": [x, 5, side, side], "segmentation": square(x, 5, side),
        }
        for i in range(images) for c, (x, side) in enumerate(((3 + i, 8), (20, 10)), 1)
    ]  # fmt: skip
    return {
        "images": [{"id": i + 1, "file_name": f"{i}.jpg", "width": WIDTH, "height": HEIGHT}
                   for i in range(images)],
        "annotations": entries,
        "categories": [{"id": 1, "name": "bolt"}, {"id": 2, "name": "nut"}],
    }  # fmt: skip


def write(root, data, name="instances.json"):
    (root / "images").mkdir(parents=True, exist_ok=True)
    for i in range(8):
        Image.new("RGB", (WIDTH, HEIGHT), (40 * i % 255, 90, 60)).save(root / f"images/{i}.jpg")
    (root / name).write_text(json.dumps(data))
    return root


def opened(root, kind, split="train", *overrides):
    config = composed(f"dataset={kind}", f"dataset.source.root={root}", *overrides)
    data = build_data(config)
    return data.source(split)


def everything(root, kind):
    """What both splits hold, by name."""
    found = {}
    for split in ("train", "val"):
        source = opened(root, kind, split)
        found |= {source.name(i): source.read(i)[1] for i in range(len(source))}
    return found


def each(**values):
    """Changes every annotation: a function of it, or None to take the key away."""

    def change(data):
        for entry in data["annotations"]:
            for key, value in values.items():
                entry[key] = value(entry) if callable(value) else value
                if entry[key] is None:
                    del entry[key]

    return change


def text_ids(data):
    for entry in data["images"]:
        entry["id"] = f"img-{entry['id']}"
    for entry in data["annotations"]:
        entry["image_id"] = f"img-{entry['image_id']}"
        entry["id"] = f"a{entry['id']}"


def categories(numbers):
    def change(data):
        renamed = dict(zip((1, 2), numbers, strict=True))
        for entry in data["categories"]:
            entry["id"] = renamed[entry["id"]]
            entry["supercategory"] = "none"
        for entry in data["annotations"]:
            entry["category_id"] = renamed[entry["category_id"]]

    return change


def without_sizes(data):
    data["images"] = [{"id": i["id"], "file_name": i["file_name"]} for i in data["images"]]


def as_runs(entry):
    x, y, side, _ = entry["bbox"]
    return {"size": [HEIGHT, WIDTH], "counts": runs(x, y, side)}


def as_code(entry):
    code = rle.frPyObjects(as_runs(entry), HEIGHT, WIDTH)
    return {**code, "counts": code["counts"].decode()}


READ = {
    "as it should be": lambda data: None,
    "no area": each(area=None),
    "no box": each(bbox=None),
    "empty box": each(bbox=lambda entry: []),
    "no crowd flag": each(iscrowd=None),
    "no sizes": without_sizes,
    "neither box nor area nor flag": each(bbox=None, area=None, iscrowd=None),
    "flat polygon": each(segmentation=lambda entry: entry["segmentation"][0]),
    "runs": each(segmentation=as_runs),
    "runs alone": each(segmentation=as_runs, bbox=None, area=None),
    "code": each(segmentation=as_code),
    "text ids": text_ids,
    "huge ids": each(id=lambda entry: entry["id"] + 3_000_000_000),
    "no annotation ids": each(id=None),
    "float ids": each(image_id=lambda e: float(e["image_id"]), category_id=lambda e: 1.0 * e["id"]
                      if e["id"] < 3 else float(e["category_id"])),  # fmt: skip
    "sparse categories": categories((7, 90)),
    "categories from zero": categories((0, 1)),
    "huge categories": categories((3_000_000_001, 3_000_000_002)),
    "text categories": categories(("b", "n")),
}


@pytest.mark.parametrize("case", READ)
def test_equals_the_plain_file(tmp_path, case):
    plain = write(tmp_path / "plain", content())
    data = content()
    READ[case](data)
    other = write(tmp_path / "other", data)
    assert opened(other, "coco_json").labels.names == ("background", "bolt", "nut")
    assert opened(other, "coco_json_instances").labels.names == ("bolt", "nut")
    for kind in KINDS:
        expected, found = everything(plain, kind), everything(other, kind)
        assert expected.keys() == found.keys() == {f"images/{i}.jpg" for i in range(4)}
        for name, label in expected.items():
            if kind == "coco_json":
                assert set(np.unique(label)) == {0, 1, 2}
                assert (found[name] == label).all()
                continue
            assert found[name]["labels"].tolist() == [0, 1]
            for key in ("masks", "boxes", "crowd", "area"):
                assert (found[name][key] == label[key]).all(), key


def test_missing_sizes_are_those_of_the_upright_image(tmp_path):
    data = content()
    without_sizes(data)
    root = write(tmp_path / "own", data)
    turned = Image.new("RGB", (HEIGHT, WIDTH))
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(root / "images/1.jpg", exif=exif)
    for label in everything(root, "coco_json").values():
        assert label.shape == (HEIGHT, WIDTH)


def rle_of(**values):
    return lambda entry: {**as_runs(entry), **values}


REFUSED = {
    "boxes only": (each(segmentation=None), "annotation 1 has no segmentation"),
    "null": (lambda d: d["annotations"][4].update(segmentation=None), "annotation 5 has no segm"),
    "text": (each(segmentation="x"), "annotation 1 has a segmentation of type str"),
    "odd polygon": (each(segmentation=[[1, 1, 9, 1, 9]]), "annotation 8 has a polygon of 5"),
    "nested": (each(segmentation=[[[1, 1], [9, 1], [9, 9]]]), "annotation 1 has a polygon that is"),
    "words": (each(segmentation=[["1", "1", "9", "1", "9", "9"]]), "annotation 1 has a polygon"),
    "nan": (each(segmentation=[[1, 1, 9, float("nan"), 9, 9]]), "annotation 1 .* coordinate nan"),
    "infinite": (each(segmentation=[[1, 1, 9, float("inf"), 9, 9]]), "1 .* coordinate inf"),
    "far": (each(segmentation=[[1, 1, 9, 1e12, 9, 9]]), "annotation 1 .* coordinate 1000000000000"),
    "wrong sum": (each(segmentation=rle_of(counts=[100, 50, 10])), "annotation 1 .* add up to 160"),
    "negative": (each(segmentation=rle_of(counts=[-1, 1201])), "annotation 1 .* no runs of pixels"),
    "swapped": (each(segmentation=rle_of(size=[WIDTH, HEIGHT])),
                r"annotation 1 .* size \[40, 30\], expected \[30, 40\]"),
    "cut code": (each(segmentation=lambda e: {**as_code(e), "counts": as_code(e)["counts"][:-1]}),
                 "annotation 1 has an RLE whose counts"),
    "odd code": (each(segmentation=rle_of(counts="~ä")), "annotation 1 .* no compressed code"),
    "no counts": (each(segmentation={"size": [HEIGHT, WIDTH]}), "annotation 1 .* no runs"),
    "box of nan": (each(bbox=[1, 1, float("nan"), 3]), "annotation 1 has bbox"),
    "box of three": (each(bbox=[1, 1, 3]), "annotation 1 has bbox"),
    "area": (each(area="big"), "annotation 1 has area 'big'"),
    "crowd": (each(iscrowd="no"), "annotation 1 has iscrowd 'no'"),
    "category": (each(category_id=77), "annotation 1 has category id 77, .* categories 1, 2"),
    "no category": (each(category_id=None), "entry 1 has category_id None"),
    "twice": (each(id=7), "annotation id 7 stands 8 times"),
    "image twice": (lambda d: d["images"].append(d["images"][0]), "image id 1 stands 2 times"),
    "file twice": (lambda d: d["images"][0].update(file_name="1.jpg"), "file_name 1.jpg stands 2"),
    "orphan": (each(image_id=99), "annotation 1 is of no listed image"),
    "no file": (lambda d: d["images"][0].update(file_name="gone.jpg"), "gone.jpg: no such image"),
    "no name": (lambda d: d["images"][2].pop("file_name"), "entry 3 has file_name None"),
    "odd size": (lambda d: d["images"][2].update(width=0), "image 3 .* width 0"),
    "huge": (lambda d: d["images"][2].update(width=99_999, height=99_999), "3 .* width 99999"),
    "class twice": (lambda d: d["categories"][1].update(name="bolt"), "category name bolt stands"),
    "id of a class twice": (lambda d: d["categories"][1].update(id=1), "category id 1 stands 2"),
    "no categories": (lambda d: d.pop("categories"), "no list of annotations or of categories"),
    "no annotations": (lambda d: d.pop("annotations"), "no list of annotations or of categories"),
    "no images": (lambda d: d.pop("images"), "not an annotation file of COCO"),
    "a list": (lambda d: d.update(annotations=["x"]), "not an annotation file of COCO"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused_by_file_and_id(tmp_path, case):
    data = content()
    change, message = REFUSED[case]
    change(data)
    root = write(tmp_path / "own", data)
    for kind in KINDS:
        with pytest.raises(UserError, match=rf"(?s){root}.*{message}"):
            opened(root, kind)


def test_image_of_another_size_is_named(tmp_path):
    root = write(tmp_path / "own", content())
    Image.new("RGB", (HEIGHT, WIDTH)).save(root / "images/2.jpg")
    for kind in KINDS:
        with pytest.raises(UserError, match=r"2\.jpg: the image is 30x40 but .* says 40x30"):
            everything(root, kind)


@pytest.mark.parametrize("segmentation", [[], [[]], [[1, 1, 5, 5]], [square(60, 60, 5)[0]]])
def test_what_shows_nothing_is_counted(tmp_path, segmentation):
    data = content()
    data["annotations"][2].update(segmentation=segmentation, bbox=None)
    root = write(tmp_path / "own", data)
    for kind in KINDS:
        notes = opened(root, kind).listing().notes
        assert len(notes) == 1
        assert "annotation 3 has" in notes[0]
    counts = [len(target["labels"]) for target in everything(root, "coco_json_instances").values()]
    assert sorted(counts) == [1, 2, 2, 2]


def test_prepare_says_what_training_says(tmp_path, segtrain):
    data = content()
    each(segmentation=None)(data)
    data["annotations"] = data["annotations"][:1]
    root = write(tmp_path / "own", data)
    for kind, network in zip(KINDS, ("deeplabv3", "mask_rcnn"), strict=True):
        source = [f"dataset={kind}", f"dataset.source.root={root}"]
        said = [segtrain("prepare", *source), segtrain(*source, f"architecture={network}")]
        assert [code for code, _, _ in said] == [2, 2]
        assert said[0][2] == said[1][2]
        assert "annotation 1 has no segmentation" in said[0][2]


def test_left_out_annotations_are_said(tmp_path, segtrain):
    data = content()
    data["annotations"][2]["segmentation"] = []
    root = write(tmp_path / "own", data)
    code, out, err = segtrain("prepare", "dataset=coco_json", f"dataset.source.root={root}",
                              "dataset.num_workers=0")  # fmt: skip
    assert code == 0, err
    assert "left out    1 annotations" in out
    assert "annotation 3 has an empty segmentation" in out


def test_later_objects_lie_on_top_and_crowds_below(tmp_path):
    data = content(images=2)
    shapes = [(2, square(0, 0, 20), 0), (1, square(5, 5, 10), 0), (1, square(10, 10, 20), 1)]
    data["annotations"] = [
        {"id": 9 - i, "image_id": 1, "category_id": c, "segmentation": s, "iscrowd": crowd}
        for i, (c, s, crowd) in enumerate(shapes)
    ]
    mask = everything(write(tmp_path / "own", data), "coco_json")["images/0.jpg"]
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[10:30, 10:30], expected[:20, :20], expected[5:15, 5:15] = 255, 2, 1
    assert (mask == expected).all()


def test_categories_for_background_and_void(tmp_path):
    data = content(images=2)
    data["categories"] = [{"id": i, "name": n} for i, n in enumerate(
        ("_background_", "bolt", "nut", "__ignore__"))]  # fmt: skip
    more = [(0, square(0, 0, 30)), (3, square(20, 5, 10))]
    data["annotations"] += [
        {"id": 90 + c, "image_id": 1, "category_id": c, "segmentation": s} for c, s in more
    ]
    root = write(tmp_path / "own", data)
    mask = everything(root, "coco_json")["images/0.jpg"]
    assert set(np.unique(mask[:, :30])) == {0, 255}
    assert opened(root, "coco_json").labels.names == ("background", "bolt", "nut")
    target = everything(root, "coco_json_instances")["images/0.jpg"]
    assert target["labels"].tolist() == [0, 1]
    assert len(target["masks"]) == len(target["boxes"]) == 2


def test_files_of_the_splits_are_found_or_named(tmp_path):
    first, second = content(4), content(6)
    second["images"] = second["images"][4:]
    second["annotations"] = second["annotations"][8:]
    root = write(tmp_path / "own", first, "train.json")
    write(root, second, "val.json")
    assert [len(opened(root, "coco_json", split)) for split in ("train", "val")] == [4, 2]
    with pytest.raises(UserError, match=r"neither test\.json nor instances_test\.json"):
        opened(root, "coco_json", "test")
    named = "dataset.source.annotations={train: val.json, test: train.json}"
    assert len(opened(root, "coco_json_instances", "test", named)) == 4
    with pytest.raises(UserError, match="no file of split 'val', only of train, test"):
        opened(root, "coco_json_instances", "val", named)
    second["categories"][1]["name"] = "washer"
    write(root, second, "val.json")
    for kind in KINDS:
        with pytest.raises(UserError, match=r"val\.json: category 2 'washer' is none of the set"):
            opened(root, kind, "val")


def test_one_file_is_shared_out_by_seed(tmp_path):
    root = write(tmp_path / "own", content(8))
    parts = {}
    for seed in (0, 1, 0):
        names = []
        for split in ("train", "val"):
            source = opened(root, "coco_json", split, f"dataset.source.seed={seed}",
                            "dataset.source.val_share=0.25")  # fmt: skip
            names.append({source.name(i) for i in range(len(source))})
        assert [len(part) for part in names] == [6, 2]
        assert not names[0] & names[1]
        assert parts.setdefault(seed, names) == names
    assert parts[0] != parts[1]
    assert share_out(["a", "b"], 0.01, 0).count(True) == 1
    for share in (0, 1, -1):
        with pytest.raises(UserError, match="val_share"):
            share_out(["a", "b"], share, 0)


def test_own_classes_are_not_taken_for_cocos(tmp_path):
    write(tmp_path / "annotations", content(), "instances_train2017.json")
    (tmp_path / "annotations/images").rename(tmp_path / "train2017")
    message = r"category 1 is 'bolt', COCO's is 'person'; .* dataset=coco_json_instances"
    for kind in ("coco2017", "cocovoc"):
        with pytest.raises(UserError, match=message):
            opened(tmp_path, kind, "train2017")


@pytest.mark.parametrize(
    ("kind", "overrides"),
    [
        ("coco_json", ["experiment=quickstart", "dataset.transform.crop_size=[32, 32]"]),
        (
            "coco_json_instances",
            ["experiment=mask_rcnn_shapes", "dataset.transform.short_side=[32, 32]",
             "dataset.transform.long_side=64", "architecture.channels=8",
             "architecture.box_width=16", "architecture.samples=8"],
        ),
    ],
)  # fmt: skip
def test_trains_two_steps(tmp_path, segtrain, kind, overrides):
    root = write(tmp_path / "own", content())
    code, _, err = segtrain(
        f"dataset={kind}", f"dataset.source.root={root}", *overrides,
        "architecture.backbone.name=test_resnet", "architecture.backbone.weights=none",
        "dataset.num_workers=0", "trainer.accelerator=cpu", "trainer.max_steps=2",
        "trainer.val_every_n_steps=2", "batch_size=2", "report=null",
    )  # fmt: skip
    assert code == 0, err
    path = next((tmp_path / "outputs").rglob("results.json"))
    results = json.loads(path.read_text())
    assert results["dataset"] == kind
    classes = results["metrics"].get("per_class_ap") or results["metrics"]["per_class_iou"]
    assert {"bolt", "nut"} <= set(classes)
