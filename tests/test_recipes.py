"""Every full-size experiment: two steps of the real network at the recipe's own crop size, on a
small tree of its own data set in the official layout."""

import json
import shutil

import numpy as np
import pytest
from conftest import annotation, composed, only_run, results_of, write_coco, write_pair
from panoptic_sets import write_png, write_set
from PIL import Image
from scipy.io import savemat

from segtrain.configuration.folder import options
from segtrain.headlines import HEADLINES

FULL_SIZE = [
    name for name in options("experiment") if not name.endswith(("_shapes", "_camvid", "start"))
]
NAMES = ["a", "b", "c", "d"]


def tiles(values: list[int], dtype: type = np.uint8) -> np.ndarray:
    """Mask (96, 120) of 24x24 tiles that take the values in turn."""
    grid = np.resize(np.array(values, dtype), (4, 5))
    return np.kron(grid, np.ones((24, 24), dtype))


def write_voc(root, year: str) -> None:
    """VOC with train a b, val c d and SBD with train b c, val a."""
    base = root / "VOCdevkit" / f"VOC{year}"
    for name in NAMES:
        write_pair(base, name, tiles([0, 2, 9, 15, 255, 20]))
    (base / "images").rename(base / "JPEGImages")
    (base / "masks").rename(base / "SegmentationClass")
    lists = base / "ImageSets/Segmentation"
    lists.mkdir(parents=True)
    for split, names in {"train": "ab", "val": "cd", "trainval": "abcd"}.items():
        (lists / f"{split}.txt").write_text("\n".join(names))
    sbd = root / "benchmark_RELEASE" / "dataset"
    (sbd / "cls").mkdir(parents=True)
    (sbd / "img").mkdir()
    for name in "abc":
        shutil.copy(base / "JPEGImages" / f"{name}.jpg", sbd / "img")
        segmentation = {"Segmentation": tiles([0, 2, 9])}
        savemat(sbd / "cls" / f"{name}.mat", {"GTcls": segmentation})
    (sbd / "train.txt").write_text("b\nc\n")
    (sbd / "val.txt").write_text("a\n")


def write_coco_panoptic(root, split: str) -> None:
    """Panoptic labels of the images of `write_coco`: two persons, one thing more, and sky."""
    segments = {300: 1, 301: 1, 70000: 2, 5: 187}
    ids = tiles(list(segments), np.int64)[:40, :60]
    (root / "annotations" / f"panoptic_{split}").mkdir()
    annotations = []
    for image in (7, 3, 5):
        file = f"{image:012}.png"
        write_png(root / "annotations" / f"panoptic_{split}" / file, ids)
        infos = [{"id": key, "category_id": category, "iscrowd": 0, "area": 576}
                 for key, category in segments.items()]  # fmt: skip
        annotations.append({"image_id": image, "file_name": file, "segments_info": infos})
    names = {1: "person", 2: "bicycle", 187: "sky-other-merged"}
    content = {
        "images": [{"id": image, "file_name": f"{image:012}.jpg", "height": 40, "width": 60}
                   for image in (7, 3, 5)],
        "annotations": annotations,
        "categories": [{"id": key, "name": name, "isthing": int(key < 100)}
                       for key, name in names.items()],
    }  # fmt: skip
    (root / "annotations" / f"panoptic_{split}.json").write_text(json.dumps(content))


@pytest.fixture(scope="module")
def data_root(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    write_voc(root / "voc2012", "2012")
    base = root / "pascal_context" / "VOCdevkit" / "VOC2010"
    for name in NAMES:
        write_pair(base, name, tiles([0]))
    (base / "images").rename(base / "JPEGImages")
    (base / "masks").rename(base / "discarded")
    (base / "SegmentationClassContext459").mkdir()
    (base / "ImageSets/SegmentationContext").mkdir(parents=True)
    for name in NAMES:
        mask = Image.fromarray(tiles([2, 9, 18, 458, 0], np.uint16))
        mask.save(base / "SegmentationClassContext459" / f"{name}.png")
    for split, names in {"train": "ab", "val": "cd"}.items():
        (base / f"ImageSets/SegmentationContext/{split}.txt").write_text("\n".join(names))
    for split in ("train", "val"):
        for kind, array, folder, end in (
            ("leftImg8bit", np.zeros((96, 120, 3), np.uint8), "leftImg8bit", ""),
            ("gtFine", tiles([7, 8, 11, 26, 0]), "gtFine", "_labelIds"),
            ("gtFine", tiles([7, 26000, 26, 24001, 0], np.uint16), "gtFine", "_instanceIds"),
        ):
            city = root / "cityscapes" / folder / split / "aachen"
            city.mkdir(parents=True, exist_ok=True)
            for number in range(2):
                path = city / f"aachen_{number:06}_000019_{kind}{end}.png"
                Image.fromarray(array).save(path)
    polygon = [[5, 5, 55, 5, 55, 35, 5, 35]]
    things = [annotation(i, image, polygon, category=2) for i, image in enumerate((7, 3, 5, 9))]
    for split in ("train2017", "val2017"):
        write_coco(root / "coco", things[:3], split=split)
        older = split.replace("2017", "2014")  # has one more image, so that not all is minival
        write_coco(root / "coco", things, images=(7, 3, 5, 9), split=older)
        write_coco_panoptic(root / "coco", split)
        maps = root / "coco" / "stuffthingmaps" / split
        maps.mkdir(parents=True)
        for image in (7, 3, 5):
            Image.fromarray(tiles([0, 1, 91, 181, 255])[:40, :60]).save(maps / f"{image:012}.png")
    for split in ("training", "validation"):
        for number in range(2):
            write_pair(root / "ade", f"ADE_{number}", tiles([0, 1, 2, 150]))
        for folder, name in (("images", "images"), ("masks", "annotations")):
            (root / "ade20k" / name).mkdir(parents=True, exist_ok=True)
            (root / "ade" / folder).rename(root / "ade20k" / name / split)
    write_set(root / "folder_panoptic", {"train": ["a", "b"], "val": ["c"]})
    write_pair(root / "own", "p0", tiles([0, 1, 2]))
    write_pair(root / "own", "p1", tiles([2, 1, 0]))
    (root / "own" / "classes.txt").write_text("sky\nroad\ncar\n")
    for split in ("train", "val"):
        (root / "own" / f"{split}.txt").write_text("p0\np1\n")
    return root


@pytest.mark.slow
@pytest.mark.parametrize("name", FULL_SIZE)
def test_two_steps_of_the_full_network(name, segtrain, data_root, tmp_path, monkeypatch):
    monkeypatch.setenv("SEGTRAIN_DATA", str(data_root))
    monkeypatch.setenv("SEGTRAIN_CACHE", str(tmp_path / "cache"))
    config = composed(f"experiment={name}")
    own = [f"dataset.source.root={data_root / 'own'}"] * (config["dataset"]["name"] == "folder")
    code, _, err = segtrain(
        f"experiment={name}", "architecture.backbone.weights=none", "batch_size=1",
        "trainer.max_steps=2", "trainer.max_epochs=null", "trainer.val_every_n_steps=2",
        "trainer.accelerator=cpu", "dataset.num_workers=0", "logger=csv", "callback=[]", *own,
    )  # fmt: skip
    assert code == 0, err
    results = results_of(only_run(f"outputs/{name}/*"))
    assert results["global_step"] == 2
    assert results["metrics"][HEADLINES[results["task"]]] is not None
