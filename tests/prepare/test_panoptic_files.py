"""COCO's inner archives, and Cityscapes' labels as cityscapesScripts writes them."""

import json
import zipfile

import numpy as np
import pytest
from conftest import composed
from PIL import Image

from segtrain.assembly import build_data
from segtrain.dataset.cityscapes import cityscapes_panoptic
from segtrain.dataset.panoptic_labels import CITYSCAPES_PANOPTIC
from segtrain.errors import UserError
from segtrain.prepare.cityscapes_panoptic import write_panoptic
from segtrain.prepare.panoptic import unpack_masks


@pytest.mark.parametrize("split", ["val", pytest.param("train", marks=pytest.mark.slow)])
def test_cityscapes_is_written_as_its_own_scripts_do(real_data, tmp_path, split):
    scripts = pytest.importorskip("cityscapesscripts.preparation.createPanopticImgs")
    (tmp_path / "theirs").mkdir()
    scripts.convert2panoptic(str(real_data / "cityscapes/gtFine"), str(tmp_path / "theirs"),
                             setNames=[split])  # fmt: skip
    source = cityscapes_panoptic(str(real_data / "cityscapes"), split, CITYSCAPES_PANOPTIC)
    write_panoptic(source, split, tmp_path / "ours")
    name = f"cityscapes_panoptic_{split}"
    ours, theirs = (json.loads((tmp_path / who / f"{name}.json").read_text())
                    for who in ("ours", "theirs"))  # fmt: skip
    assert ours == theirs
    written = sorted(path.name for path in (tmp_path / "ours" / name).iterdir())
    assert written == sorted(path.name for path in (tmp_path / "theirs" / name).iterdir())
    for file in written:
        one, other = (np.asarray(Image.open(tmp_path / who / name / file))
                      for who in ("ours", "theirs"))  # fmt: skip
        assert np.array_equal(one, other)


def test_the_command_writes_them_where_it_is_asked_to(real_data, tmp_path, segtrain):
    root = tmp_path / "cityscapes"
    for folder in ("leftImg8bit", "gtFine"):
        (root / folder).mkdir(parents=True)
        (root / folder / "val").symlink_to(real_data / "cityscapes" / folder / "val")
    chosen = ["dataset=cityscapes_panoptic", f"dataset.source.root={root}", "complete=false",
              "dataset.splits={train: val, val: val, test: val}", "dataset.num_workers=0",
              "dataset.preparation.archives=[]",
              "dataset.preparation.optional=[train, test, train_extra, train_coarse, val_coarse]",
              ]  # fmt: skip
    code, _, err = segtrain("prepare", *chosen, f"panoptic={tmp_path / 'written'}")
    assert code == 0, err
    assert (tmp_path / "written/cityscapes_panoptic_val.json").is_file()
    code, _, err = segtrain("prepare", "dataset=shapes", f"panoptic={tmp_path / 'other'}")
    assert code == 2
    assert "cityscapes_panoptic alone" in err


def pack_masks(root, inside="panoptic_val2017"):
    folder = root / "annotations"
    folder.mkdir(parents=True)
    with zipfile.ZipFile(folder / "panoptic_val2017.zip", "w") as archive:
        archive.writestr(f"{inside}/1.png", b"pixels")
        archive.writestr("__MACOSX/1.png", b"")
    return folder


def test_inner_archives_are_unpacked_once(tmp_path):
    folder = pack_masks(tmp_path)
    assert unpack_masks(tmp_path)
    assert (folder / "panoptic_val2017/1.png").read_bytes() == b"pixels"
    assert sorted(path.name for path in folder.iterdir()) == [
        "panoptic_val2017", "panoptic_val2017.zip"
    ]  # fmt: skip
    assert not unpack_masks(tmp_path)
    (folder / "panoptic_val2017").rename(tmp_path / "panoptic_val2017")
    assert not unpack_masks(tmp_path)


def test_an_inner_archive_of_something_else_is_refused(tmp_path):
    folder = pack_masks(tmp_path, inside="images")
    with pytest.raises(UserError, match="holds no folder panoptic_val2017"):
        unpack_masks(tmp_path)
    assert [path.name for path in folder.iterdir()] == ["panoptic_val2017.zip"]


def test_configurations_name_the_steps():
    convert = build_data(composed("dataset=coco_panoptic")).preparation.convert
    assert convert.func is unpack_masks
    assert build_data(composed("dataset=cityscapes_panoptic")).preparation.panoptic is not None
