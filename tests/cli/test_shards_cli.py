"""Writing shards, training on them and testing with them, from the command line."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY, composed, only_run, results_of
from PIL import Image

from segtrain.assembly import resolve_white_level

pytest.importorskip("webdataset", reason="pip install segtrain[shards]")

SET = [TINY[1], TINY[2]]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SEGTRAIN_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def shards(segtrain):
    code, out, err = segtrain("prepare", "dataset=shapes", *SET, "shards=3", "output=shards")
    assert code == 0, err
    assert out.count("each of") == 3
    assert "dataset.shards=shards" in out
    return out


def weights(run):
    return torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"]


def test_training_on_shards_is_training_on_files(shards, segtrain):
    for name, more in {"files": [], "shards": ["dataset.shards=shards"]}.items():
        code, _, err = segtrain(*TINY, *more, f"hydra.run.dir=outputs/{name}")
        assert code == 0, err
    files, read = weights(Path("outputs/files")), weights(Path("outputs/shards"))
    assert all(torch.equal(files[key], read[key]) for key in files)
    results = [results_of(Path("outputs") / name)["metrics"] for name in ("files", "shards")]
    assert results[0] == results[1]
    code, _, err = segtrain("evaluate", "run=outputs/shards", "split=val")
    assert code == 0, err
    assert results_of(only_run("outputs/evaluate/*"))["images"] == 7


def test_resuming_on_mixed_shards_is_exact(shards, segtrain):
    mixed = ["dataset.shards=shards", "dataset.shard_window=2", "dataset.num_workers=2"]
    assert segtrain(*TINY, *mixed, "hydra.run.dir=outputs/whole")[0] == 0
    fault = "+callback.fault={_target_: faults.Strike, step: 2, number: 15, rank: 0}"
    code, _, err = segtrain(*TINY, *mixed, "hydra.run.dir=outputs/part", fault)
    assert code == 143, err
    code, _, err = segtrain("resume=outputs/part", "trust_code=true")
    assert code == 0, err
    whole, part = weights(Path("outputs/whole")), weights(Path("outputs/part"))
    assert all(torch.equal(whole[key], part[key]) for key in whole)


def test_verifies_shards_and_names_a_corrupt_one(shards, segtrain):
    verifying = ["prepare", "dataset=shapes", *SET, "dataset.shards=shards"]
    code, out, err = segtrain(*verifying)
    assert code == 0, err
    assert "no fault" in out
    path = Path("shards/val/00001.tar")
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    code, out, err = segtrain(*verifying)
    assert code == 2
    assert "shards/val/00001.tar: this shard is corrupt" in err
    path.unlink()
    code, out, err = segtrain(*TINY, "dataset.shards=shards")
    assert code == 2
    assert "shards/val/00001.tar: this shard is lost" in err


@pytest.mark.parametrize("count", ["0", "many"])
def test_refuses_what_is_no_number(count, segtrain):
    code, _, err = segtrain("prepare", "dataset=shapes", *SET, f"shards={count}")
    assert code == 2
    assert f"shards={count}: expected a whole number of at least 1 or auto" in err


def test_refuses_to_write_shards_of_shards(shards, segtrain):
    code, _, err = segtrain("prepare", "dataset=shapes", "dataset.shards=shards", "shards=2")
    assert code == 2
    assert "leave out dataset.shards" in err


def test_training_on_shards_knows_the_white_level_of_the_files(segtrain, folder_set):
    for path in folder_set.glob("images/*.jpg"):
        grey = np.asarray(Image.open(path).convert("L")).astype(np.uint16)
        Image.fromarray(grey * 16).save(path.with_suffix(".png"))  # 12 bits
        path.unlink()
    files = ["dataset=folder", f"dataset.source.root={folder_set}"]
    code, _, err = segtrain("prepare", *files, "shards=2", "output=shards")
    assert code == 0, err
    on_files, on_shards = composed(*files), composed("dataset=folder", "dataset.shards=shards",
                                                     "dataset.source.root=nowhere")  # fmt: skip
    for config in (on_files, on_shards):
        resolve_white_level(config)
        assert config["dataset"]["source"]["white_level"] == 4095
