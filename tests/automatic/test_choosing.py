"""The values that a training gets where they are not given: what is stored, and what stays."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import TINY, composed
from PIL import Image

from segtrain.automatic import choosing
from segtrain.automatic.facts import find_facts
from segtrain.automatic.memory import fitting

SMALL = [
    "architecture.channels=8",
    "architecture.low_level_channels=8",
    "steps=2",
    "trainer.accelerator=cpu",
    "report=null",
]


@pytest.fixture(autouse=True)
def no_hub(monkeypatch):
    """No weights but those that a test puts there."""
    monkeypatch.setattr(choosing, "can_fetch", lambda name: False)


@pytest.fixture
def photos(tmp_path) -> Path:
    """Ten pictures of 40x64; the class `dot` has one pixel in a hundred."""
    root = tmp_path / "photos"
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    random = np.random.default_rng(0)
    for number in range(10):
        mask = np.zeros((40, 64), np.uint8)
        mask[20:] = 1
        mask[:5, :5] = 2
        image = random.integers(0, 60, (40, 64, 3), dtype=np.uint8) + 80 * mask[..., None]
        Image.fromarray(image).save(root / f"images/p{number}.png")
        Image.fromarray(mask).save(root / f"masks/p{number}.png")
    (root / "classes.txt").write_text("sky\nroad\ndot\n")
    return root


def stored() -> dict:
    (file,) = Path("outputs").rglob("config.yaml")
    return yaml.safe_load(file.read_text())


def test_data_alone_is_enough(photos, segtrain):
    code, out, err = segtrain("train", f"data={photos}", *SMALL)
    assert code == 0, err
    config = stored()
    assert config["automatic"] is False
    assert config["architecture"]["backbone"]["name"] == "resnet10t"
    assert config["dataset"]["transform"]["crop_size"] == [32, 64]
    assert config["trainer"]["max_steps"] == 2
    assert config["trainer"]["val_every_n_steps"] == 1  # of the two steps that were given
    for key, reason in config["chosen"].items():
        assert f"{key}=" in out
        assert f"({reason})" in out
    assert "dot has" in config["chosen"]["loss.pixel.class_weights"]
    assert "starts untrained" in out
    results = json.loads(next(Path("outputs").rglob("results.json")).read_text())
    assert results["global_step"] == 2


def test_what_is_given_stays(photos, segtrain):
    given = {"size": "64,32", "batch": "3", "lr": "0.5", "workers": "1",
             "architecture.backbone.name": "test_resnet",
             "dataset.transform.scale_range": "[1.0,1.0]", "loss.pixel.class_weights": "null",
             "callback.ema.decay": "0.5"}  # fmt: skip
    code, _, err = segtrain("train", f"data={photos}", *SMALL,
                            *(f"{key}={value}" for key, value in given.items()))  # fmt: skip
    assert code == 0, err
    config = stored()
    assert config["dataset"]["transform"]["crop_size"] == [64, 32]
    assert config["dataset"]["transform"]["scale_range"] == [1.0, 1.0]
    assert config["batch_size"] == 3
    assert config["optimizer"]["lr"] == 0.5
    assert config["dataset"]["num_workers"] == 1
    assert config["architecture"]["backbone"]["name"] == "test_resnet"
    assert config["loss"]["pixel"]["class_weights"] is None
    assert config["callback"]["ema"]["decay"] == 0.5
    assert config["trainer"]["max_steps"] == 2


def test_what_an_experiment_of_ones_own_sets_stays(photos, segtrain):
    text = "# @package _global_\ndefaults: [own]\noptimizer: {lr: 0.123}\nbatch_size: 3\n"
    Path("mine.yaml").write_text(text)
    source = f"dataset.source.root={photos}"
    code, _, err = segtrain("train", "experiment=mine.yaml", source, *SMALL)
    assert code == 0, err
    assert stored()["optimizer"]["lr"] == 0.123
    assert stored()["batch_size"] == 3
    assert "trainer.val_every_n_steps" in stored()["chosen"]


def test_weights_of_a_name_that_is_none(photos, segtrain, monkeypatch):
    monkeypatch.undo()
    code, _, err = segtrain("train", f"data={photos}", "architecture.backbone.name=resnet18.none")
    assert code == 2
    assert "timm has no weights 'resnet18.none'; nearest: resnet18.a1_in1k" in err


def test_epochs_are_taken_as_given(photos, segtrain):
    settings = [value for value in SMALL if value != "steps=2"]
    code, _, err = segtrain("train", f"data={photos}", *settings, "epochs=1")
    assert code == 0, err
    assert stored()["trainer"]["max_epochs"] == 1
    assert stored()["optimizer"]["warmup_steps"] == 0  # a twentieth of the one or two steps
    assert stored()["trainer"]["max_steps"] is None


def test_a_run_resumes_with_what_was_chosen(photos, segtrain):
    assert segtrain("train", f"data={photos}", *SMALL)[0] == 0
    before = stored()
    Path("photos/extra").mkdir(parents=True)  # nothing of the data is looked at again
    code, out, err = segtrain("resume=own", "steps=3")
    assert code == 0, err
    assert "(each of the" not in out
    changed = {"trainer": {**before["trainer"], "max_steps": 3}}
    assert {**stored(), "resume": None} == {**before, **changed, "resume": None}


def test_two_processes_choose_the_same(photos, segtrain):
    """The one that was started chooses, for both."""
    settings = [value for value in SMALL if not value.startswith("trainer.")]
    code, out, err = segtrain("train", f"data={photos}", *settings, "trainer=ddp_cpu")
    assert code == 0, err
    results = json.loads(next(Path("outputs").rglob("results.json")).read_text())
    assert results["global_step"] == 2
    assert stored()["batch_size"] == 2
    assert out.count("batch_size=2 ") == 1


def test_every_job_of_a_sweep_has_values_of_its_own(photos, segtrain):
    code, _, err = segtrain("-m", f"data={photos}", *SMALL, "lr=0.1,0.2")
    assert code == 0, err
    files = sorted(Path("outputs").rglob("*/config.yaml"))
    configs = [yaml.safe_load(file.read_text()) for file in files]
    configs = [config for config in configs if "optimizer" in config]
    assert sorted(config["optimizer"]["lr"] for config in configs) == [0.1, 0.2]
    assert all(config["dataset"]["transform"]["crop_size"] == [32, 64] for config in configs)


def test_a_faulty_set_is_refused_before_anything_is_chosen(photos, segtrain):
    Image.fromarray(np.full((40, 64), 9, np.uint8)).save(photos / "masks" / "p3.png")
    code, out, err = segtrain("train", f"data={photos}", *SMALL)
    assert code == 2
    assert "mask value 9 is not in the label map" in err
    assert "chosen" not in out
    assert not Path("outputs").exists()


def test_other_experiments_choose_when_asked(photos, segtrain):
    code, _, err = segtrain(*TINY, "automatic=true")
    assert code == 0, err
    config = stored()
    assert config["architecture"]["backbone"]["name"] == "test_resnet"
    assert config["trainer"]["max_steps"] == 4
    assert "optimizer.lr" in config["chosen"]


def test_weights_that_can_be_had_are_taken(photos, monkeypatch):
    monkeypatch.setattr(choosing, "can_fetch", lambda name: name == "efficientnet_lite0")
    config = composed("experiment=own", f"dataset.source.root={photos}")
    monkeypatch.setattr(choosing, "fitting", lambda config, facts: 8)
    choosing.choose(config, [])
    assert config["architecture"]["backbone"]["weights"] == "imagenet"
    assert config["architecture"]["backbone"]["name"] == "efficientnet_lite0"


@pytest.mark.parametrize("network", ["architecture=segformer architecture.backbone.name=pvt_v2_b0",
                                     "architecture=fcn8s"])  # fmt: skip
def test_networks_of_other_weights_start_untrained_too(photos, monkeypatch, network):
    monkeypatch.setattr(choosing, "fitting", lambda config, facts: 8)
    config = composed("experiment=own", f"dataset.source.root={photos}", *network.split())
    kind = config["architecture"]["backbone"]["weights"]
    assert kind != "none"
    choosing.choose(config, [])
    assert config["architecture"]["backbone"]["weights"].endswith("none")
    assert "fetched" in {c.key: c.reason for c in choosing.choose(
        composed("experiment=own", f"dataset.source.root={photos}", *network.split()), []
    )}["architecture.backbone.weights"]  # fmt: skip


def test_the_batch_fits_the_memory(photos):
    """As many images as the memory has room for, in proportion."""
    config = composed("experiment=own", f"dataset.source.root={photos}",
                      "architecture.backbone.name=test_resnet")  # fmt: skip
    assert growing_with_memory(config) == 1


def test_the_batch_of_a_detector_fits_the_memory(squares):
    config = composed("experiment=own_instances", "architecture=mask_rcnn",
                      "architecture.backbone.name=test_resnet",
                      f"dataset.source.root={squares}")  # fmt: skip
    assert growing_with_memory(config) == 1


def growing_with_memory(config: dict) -> int:
    """The batch that fits into almost nothing; ten times the memory holds about ten times more."""
    facts = find_facts(config)
    some, more = (fitting(config, facts._replace(memory=10**size)) for size in (11, 12))
    assert some > 1
    assert 8 * some < more < 12 * some
    return fitting(config, facts._replace(memory=10**5))


@pytest.fixture
def squares(tmp_path) -> Path:
    """COCO JSON of six images with a square each."""
    root = tmp_path / "set"
    (root / "images").mkdir(parents=True)
    images, annotations = [], []
    for number in range(1, 7):
        pixels = np.full((64, 64, 3), 50, np.uint8)
        pixels[10:40, 10:40] = 200
        Image.fromarray(pixels).save(root / f"images/{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "height": 64, "width": 64})
        annotations.append({"id": number, "image_id": number, "category_id": 1,
                            "segmentation": [[10, 10, 40, 10, 40, 40, 10, 40]]})  # fmt: skip
    content = {"images": images, "annotations": annotations,
               "categories": [{"id": 1, "name": "square"}]}  # fmt: skip
    (root / "all.json").write_text(json.dumps(content))
    return root


def test_a_detector_of_ones_own_objects(squares, segtrain):
    """Its sides, steps and batch are chosen."""
    code, _, err = segtrain("train", f"data={squares}", "model=mask_rcnn", "steps=1", "report=null",
                            "architecture.backbone.name=test_resnet",
                            "trainer.accelerator=cpu")  # fmt: skip
    assert code == 0, err
    config = stored()
    assert config["dataset"]["transform"]["short_side"] == [51, 64]
    assert config["inference"]["short_sides"] == [64]


def test_masks_of_classes_teach_a_network_of_queries(photos, segtrain):
    code, out, err = segtrain(
        "train", f"data={photos}", "model=mask2former", "architecture.backbone.name=test_resnet",
        "architecture.channels=32", "architecture.encoder_layers=1",
        "architecture.decoder_layers=1", "architecture.num_queries=5",
        "architecture.encoder_width=32", "architecture.decoder_width=32",
        "loss.num_points=64", "batch=2", *SMALL[2:],
    )  # fmt: skip
    assert code == 0, err
    config = stored()
    assert config["optimizer"]["lr"] == 1e-4
    assert config["trainer"]["gradient_clip_val"] == 0.01
    assert out.count("optimizer.lr=") == 1
