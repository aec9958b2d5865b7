"""Images and masks are turned upright, each by its own EXIF tag, whoever reads them."""

import json
import logging
import struct
from pathlib import Path

import numpy as np
import pytest
from conftest import composed
from PIL import Image

from segtrain.assembly import build_data
from segtrain.dataset.cityscapes import CityscapesInstances, cityscapes
from segtrain.dataset.coco import CocoAsVoc, CocoInstances
from segtrain.dataset.files import read_image, read_mask
from segtrain.dataset.labels import CITYSCAPES, CITYSCAPES_INSTANCES, COCO, VOC
from segtrain.dataset.pairs import ImageMaskPairs, Pair
from segtrain.dataset.pixels import cached_pixels
from segtrain.dataset.shard_index import ShardReading, join_splits
from segtrain.dataset.stream import TrainStream
from segtrain.errors import UserError
from segtrain.picture import read_picture
from segtrain.prepare.shards import write_shards, write_split

SIZES = [(24, 36), (30, 30)]
ORIENTATIONS = range(1, 9)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SEGTRAIN_CACHE", str(tmp_path / "cache"))


def scene(size) -> np.ndarray:
    coarse = np.random.default_rng(0).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    return np.array(Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BICUBIC))


def corner(size) -> np.ndarray:
    """A mask of 0 and 1 that looks otherwise however it is turned."""
    mask = np.zeros(size, np.uint8)
    mask[: size[0] // 3, : size[1] // 2] = 1
    return mask


def as_stored(upright: np.ndarray, orientation: int) -> np.ndarray:
    """What a camera stores that is held so."""
    swapped = upright.swapaxes(0, 1)
    stored = {1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1],
              5: swapped, 6: np.rot90(upright), 7: swapped[::-1, ::-1],
              8: np.rot90(upright, -1)}  # fmt: skip
    return np.ascontiguousarray(stored[orientation])


def tag(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def save(path, upright, orientation) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    stored = Image.fromarray(as_stored(upright, orientation))
    lossless = {"lossless": True} if path.suffix == ".webp" else {"quality": 95, "subsampling": 0}
    stored.save(path, exif=tag(orientation), **lossless)


def behind_the_pixels(path) -> None:
    """Moves the eXIf chunk of a PNG file to its end, where other programs put it."""
    data, position, chunks = path.read_bytes(), 8, []
    while position < len(data):
        end = position + 12 + struct.unpack(">I", data[position : position + 4])[0]
        chunks.append(data[position:end])
        position = end
    chunks.sort(key=lambda chunk: (b"IDAT", b"eXIf", b"IEND").index(chunk[4:8])
                if chunk[4:8] in (b"eXIf", b"IEND") else 0)  # fmt: skip
    path.write_bytes(data[:8] + b"".join(chunks))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ["a.png", "behind.png", "a.tif", "a.webp"])
def test_images_of_every_kind(tmp_path, name, size):
    for orientation in ORIENTATIONS:
        path = tmp_path / name
        save(path, scene(size), orientation)
        if name == "behind.png":
            behind_the_pixels(path)
        assert np.array_equal(read_image(path), scene(size))
        found = read_picture(path)
        assert np.array_equal(found.pixels, scene(size))
        assert found.orientation == orientation


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ["L", "P", "1", "I;16"])
@pytest.mark.parametrize("name", ["a.png", "behind.png", "a.tif"])
def test_masks_are_turned_by_their_own_tag(tmp_path, name, kind, size):
    for orientation in ORIENTATIONS:
        stored, path = as_stored(corner(size), orientation), tmp_path / name
        mask = Image.fromarray(stored.astype(np.uint16) if kind == "I;16" else stored)
        if kind == "P":
            mask.putpalette(list(range(256)) * 3)
        if kind == "1":
            mask = Image.fromarray(stored.astype(bool))
        mask.save(path, exif=tag(orientation))
        if name == "behind.png":
            behind_the_pixels(path)
        assert np.array_equal(read_mask(path), corner(size))


def folder_pairs(root, size, orientation, labelled):
    save(root / "images/a.jpg", scene(size), orientation)
    save(root / "masks/a.png", corner(labelled), 1)
    return ImageMaskPairs([Pair(f"{root}/images/a.jpg", f"{root}/masks/a.png")], VOC, root)


def from_folder(*case):
    return folder_pairs(*case).read(0)


def from_cache(*case):
    return cached_pixels(folder_pairs(*case), "own", num_workers=0).read(0)


def from_shards(root, *case):
    pytest.importorskip("webdataset", reason="pip install segtrain[shards]")
    write_split(folder_pairs(root, *case), "train", root / "shards", 1, 128, num_workers=0)
    reading = ShardReading(str(root / "shards"))
    return join_splits(reading, ["train.partial"], VOC, semantic=True).read(0)


def from_training_stream(*case):
    return TrainStream(folder_pairs(*case), lambda image, mask, seed: (image, mask), seed=0)[0][:2]


def cityscapes_tree(root, size, orientation, labelled):
    stem = "train/aachen/aachen_000000_000019"
    save(root / f"leftImg8bit/{stem}_leftImg8bit.png", scene(size), orientation)
    save(root / f"gtFine/{stem}_gtFine_labelIds.png", corner(labelled) + 7, 1)  # 7 is road
    ids = corner(labelled).astype(np.uint16) * 26000  # a car
    save(root / f"gtFine/{stem}_gtFine_instanceIds.png", ids, 1)
    return str(root)


def from_cityscapes(*case):
    return cityscapes(cityscapes_tree(*case), "train", CITYSCAPES).read(0)


def from_cityscapes_instances(*case):
    image, target = CityscapesInstances(cityscapes_tree(*case), "train", CITYSCAPES_INSTANCES).read(
        0
    )
    return image, target["masks"][0]


def coco_tree(root, size, orientation, labelled):
    save(root / "val2017/1.jpg", scene(size), orientation)
    height, width = labelled[0] // 3, labelled[1] // 2
    polygon = [0, 0, width, 0, width, height, 0, height]
    content = {
        "images": [{"id": 1, "file_name": "1.jpg", "height": labelled[0], "width": labelled[1]}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 5, "segmentation": [polygon],
                         "iscrowd": 0, "bbox": [0, 0, width, height], "area": width * height}],
    }  # fmt: skip
    (root / "annotations").mkdir()
    (root / "annotations/instances_val2017.json").write_text(json.dumps(content))
    return str(root)


def from_coco(*case):
    image, target = CocoInstances(coco_tree(*case), "val2017", COCO, filter_empty=[]).read(0)
    return image, target["masks"][0]


def from_coco_as_voc(*case):
    return CocoAsVoc(coco_tree(*case), "val2017", VOC, min_area=0).read(0)  # 5: aeroplane, 1


def from_prediction(root, size, orientation, labelled):
    save(root / "a.jpg", scene(size), orientation)
    return read_picture(root / "a.jpg").pixels, corner(size)


def from_opened_file(root, size, orientation, labelled):
    save(root / "a.jpg", scene(size), orientation)
    return read_picture(Image.open(root / "a.jpg")).pixels, corner(size)


LABELLED = [from_folder, from_cache, from_shards, from_training_stream, from_cityscapes,
            from_cityscapes_instances, from_coco, from_coco_as_voc]  # fmt: skip


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("reader", [*LABELLED, from_prediction, from_opened_file])
def test_every_reader_turns_images_and_no_labels(tmp_path, reader, size):
    for orientation in ORIENTATIONS:
        image, mask = reader(tmp_path / str(orientation), size, orientation, size)
        assert np.array_equal(mask, corner(size))
        assert image.shape == (*size, 3)
        assert np.abs(image - scene(size).astype(int)).max() <= 10  # JPEG's loss


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
@pytest.mark.parametrize("reader", LABELLED)
def test_labels_of_the_pixels_as_stored_are_refused(tmp_path, reader, orientation):
    """Their size tells them; the message says what was turned, and what mends it."""
    with pytest.raises(UserError) as error:
        reader(tmp_path, (24, 36), orientation, (36, 24))
    for part in ("36x24", "24x36", f"EXIF orientation {orientation}", "exiftool -Orientation= "):
        assert part in str(error.value)


def test_masks_of_the_pixels_as_stored_are_refused(tmp_path):
    """A mask that has taken its image's tag over."""
    save(tmp_path / "images/a.png", scene((24, 36)), 1)
    save(tmp_path / "masks/a.png", corner((24, 36)), 1)
    with Image.open(tmp_path / "masks/a.png") as mask:
        mask.save(tmp_path / "masks/a.png", exif=tag(6))
    pairs = [Pair(f"{tmp_path}/images/a.png", f"{tmp_path}/masks/a.png")]
    with pytest.raises(UserError, match=r"masks/a\.png is stored as 36x24 .* EXIF orientation 6"):
        ImageMaskPairs(pairs, VOC, tmp_path).read(0)


@pytest.fixture
def phone(folder_set):
    """A folder of six and two images, of which p2 was stored as a phone does."""
    with Image.open(folder_set / "images/p2.jpg") as image:
        upright = np.asarray(image)
    save(folder_set / "images/p2.jpg", upright, 6)
    return folder_set


def data_of(root, *overrides):
    return build_data(
        composed("dataset=folder", f"dataset.source.root={root}", "dataset.num_workers=0",
                 *overrides)
    )  # fmt: skip


@pytest.mark.parametrize("way", ["files", "cache", "shards"])
def test_turned_images_are_reported_before_the_first_step(phone, way, caplog):
    overrides = ["dataset.cache=true"] if way == "cache" else []
    if way == "shards":
        pytest.importorskip("webdataset", reason="pip install segtrain[shards]")
        write_shards(data_of(phone), ["train", "val"], 1, 128, phone / "shards")
        overrides = [f"dataset.shards={phone / 'shards'}"]
    data = data_of(phone, *overrides)
    with caplog.at_level(logging.INFO):
        data.check()
    (line,) = (line for line in caplog.messages if line.startswith("orientation"))
    assert "1 of 6 images of 'train'" in line
    assert "p2.jpg by orientation 6" in line
    assert "masks are turned by their own tag alone" in line
    caplog.clear()
    save(phone / "images/p2.jpg", scene((40, 48)), 1)
    data_of(phone).check()
    assert not any(line.startswith("orientation") for line in caplog.messages)


def test_verification_reports_turned_images(phone, segtrain):
    code, out, err = segtrain("prepare", "dataset=folder", f"dataset.source.root={phone}",
                              "dataset.num_workers=0")  # fmt: skip
    assert code == 0
    assert "1 of 6 images of 'train'" in out + err
    (report,) = Path("outputs").glob("**/verify.json")
    found = json.loads(report.read_text())
    assert found["train"]["turned_upright"] == {"images/p2.jpg": 6}
    assert found["val"]["turned_upright"] == {}
