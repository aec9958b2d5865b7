"""What a user can mend ends with exit code 2 and one message that names it."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY, only_run, untrained, write_pair


def fails(result, *parts):
    code, _, err = result
    assert code == 2
    assert err.startswith("segtrain: error: ")
    assert "Traceback" not in err
    for part in parts:
        assert part in err
    return err


FOLDER = [override for override in TINY if not override.startswith(("experiment", "dataset."))]


def own(root, *overrides):
    return [
        "dataset=folder",
        f"dataset.source.root={root}",
        "dataset.num_workers=0",
        "architecture.backbone.multi_grid=null",
        *FOLDER,
        *overrides,
    ]


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["trainer.max_stepz=3"], ["trainer.max_stepz", "nearest: max_steps"]),
        (["seet=3"], ["unknown key 'seet'", "nearest: seed"]),
        (["experiment=quickstrt"], ["unknown experiment 'quickstrt'", "nearest: quickstart"]),
        (["dataset=camvit"], ["unknown dataset 'camvit'", "camvid"]),
        (["trian"], ["unknown command 'trian'", "train"]),
        (["trainer.max_steps=[3"], ["[3"]),
        (["trainer.devices=8"], ["trainer.devices=8", "GPUs", "trainer.accelerator=cpu"]),
        (["trainer.accelerator=gpu"], ["no GPU", "trainer.accelerator=cpu"]),
        (["resume=nowhere"], ["nowhere", "run folder"]),
        (["evaluate"], ["run=<run folder>", "checkpoint=<file>"]),
        (["evaluate", "run=nowhere"], ["nowhere", "do not exist"]),
        (["dataset=camvid", "dataset.source.root=gone", "trainer.max_steps=1"], ["gone", "CamVid"]),
        (["dataset=voc", "dataset.source.root=gone", "trainer.max_steps=1"], ["gone", "VOC"]),
        (["dataset=folder", "dataset.source.root=gone"], ["gone", "classes.txt"]),
        (["dataset=coco2017", "trainer.max_steps=1"], ["instances for labels", "cocostuff"]),
        (["prepare", "dataset=voc", "dataset.source.root=gone", "verify=true"], ["gone", "VOC"]),
    ],
    ids=lambda value: value[0] if isinstance(value[0], str) and "=" in value[0] else "",
)
def test_command_line(segtrain, monkeypatch, arguments, parts):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    fails(segtrain(*arguments), *parts)


@pytest.mark.parametrize(
    ("argument", "parts"),
    [
        ("", ["''", "key=value"]),
        ("=3", ["=3", "key=value"]),
        ("seed", ["'seed'", "key=value"]),
        ("seed=", ["seed=''", "a whole number"]),
        ("seed=1,2", ["seed=1,2", "seed=[1,2]", "-m"]),
        ("seed=-1", ["seed=-1", "of at least 0"]),
        ("batch_size=0", ["batch_size=0", "of at least 1"]),
        ("batch_size=1e20", ["batch_size=1e+20", "at most 4,294,967,295"]),
        ("batch_size=${x}", ["batch_size", "'x' not found"]),
        ("batch_size=???", ["batch_size is missing"]),
        ("~seed", ["seed is missing"]),
        ("+seed=2", ["seed=<value>"]),
        ("seed.x=2", ["seed.x", "holds a value"]),
        ("optimizer.lr=nan", ["optimizer.lr=nan", "a number of at least 0"]),
        ("optimizer.lr=inf", ["optimizer.lr=inf"]),
        ("trainer.max_steps=1.5", ["trainer.max_steps=1.5", "a whole number of at least 1"]),
        ("trainer.devices=two", ["trainer.devices=two", "or auto"]),
        ("trainer.precision=12-bit", ["trainer.precision=12-bit", "bf16-mixed"]),
        ("trainer.compile=maybe", ["trainer.compile=maybe", "true or false"]),
        ("dataset.transform.crop_size=96", ["crop_size=96", "a list of 2"]),
        ("dataset.transform.scale_range=[2,0.5]", ["scale_range=[2, 0.5]", "the smaller first"]),
        ("dataset.labels.path=segtrain.nothing", ["dataset.labels.path=segtrain.nothing"]),
        ("optimizer._target_=segtrain.nothing", ["optimizer._target_=segtrain.nothing"]),
        ("dataset=null", ["dataset", "dataset=ade20k|ade20k_panoptic|camvid|"]),
        ("experiment=", ["unknown experiment ''"]),
        ("architecture.backbone=vgg16", ["architecture.backbone=vgg16", "architecture/backbone="]),
        ("architecture.backbone.name=mobilenet_v3", ["architecture.backbone.name", "mobilenetv3_"]),
        ("architecture/backbone=mobilenet_v3", ["'mobilenet_v3'", "backbone.name=mobilenetv3_"]),
        ("learning_rate=1", ["unknown key 'learning_rate'", "nearest: optimizer.lr"]),
        ("num_epochs=1", ["unknown key 'num_epochs'", "nearest: trainer.max_epochs"]),
        ("imgsz=1", ["unknown key 'imgsz'", "nearest: dataset.transform.crop_size"]),
        ("+lr=1", ["unknown key 'lr'", "nearest: optimizer.lr"]),
        ("+backbone=vgg16", ["unknown key 'backbone'", "nearest: architecture/backbone"]),
        ("+anything=1", ["unknown key 'anything'"]),
        ("+trainer.foo_bar=1", ["unknown key 'trainer.foo_bar'"]),
        ("logger.max_queue=1", ["logger.max_queue", "+logger.max_queue="]),
        ("callback.early_stopping.patience=1", ["callback=[images,ema,early_stopping]"]),
    ],
)  # fmt: skip
def test_values(segtrain, argument, parts):
    """Refused before anything is built, and without a run folder."""
    train = ["train", "trainer.accelerator=cpu"]
    fails(segtrain(*train, argument), *parts)
    assert not list(Path.cwd().iterdir())


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["predict", "max_pixels=0"], ["max_pixels=0"]),
        (["predict", "images=a.png"], ["unknown key 'images'", "nearest: input"]),
        (["predict", "inference=whole", "inference.scales=[0]"], ["inference.scales=[0]"]),
        (["predict", "inference.flip=true"], ["no inference is chosen", "inference=detect|"]),
        (["evaluate", "inference=whole", "inference.scales=[-1]"], ["inference.scales=[-1]"]),
        (["evaluate", "report.examples=-1"], ["report.examples=-1"]),
        (["export", "format=onxx"], ["format=onxx", "onnx, torch_export, safetensors"]),
        (["benchmark", "measure.rounds=0"], ["measure.rounds=0"]),
        (["table", "layout=x"], ["layout=x", "published, runs"]),
        (["report"], ["run is missing: give run=<value>"]),
        (["prepare", "shards=0"], ["shards=0"]),
        (["plan", "gpus=0"], ["gpus=0"]),
        (["reproduce", "evaluate=perhaps"], ["evaluate=perhaps"]),
        (["sweep=optuna", "seed=1,2", "sweep.trials=0"], ["sweep.trials=0"]),
        (["sweep=joblib", "seed=1,2", "sweep.jobs=many"], ["jobs", "many"]),
        (["table", "hydra.job.chdir=perhaps"], ["hydra.job.chdir", "perhaps"]),
    ],
    ids=" ".join,
)
def test_values_of_other_commands(segtrain, arguments, parts):
    fails(segtrain(*arguments), *parts)
    assert not list(Path.cwd().iterdir())


def test_no_experiment(segtrain):
    """And no quickstart in its place."""
    fails(segtrain("experiment=null", "architecture.refine=perhaps"), "architecture.refine=perhaps")


def test_all_wrong_values_are_named_at_once(segtrain):
    fails(segtrain(*TINY, "seed=x", "batch_size=0"), "seed=x", "\n  batch_size=0")


def test_refused_overrides_of_a_resumed_run(segtrain):
    assert segtrain(*TINY, "trainer.max_steps=1")[0] == 0
    for change in ("trainer.max_steps=1.5", "dataset.num_workers=none"):
        fails(segtrain(f"resume={only_run()}", change), f"{change}: expected")


def test_a_folder_with_something_in_it_is_kept(segtrain):
    Path("mine").mkdir()
    Path("mine/notes.txt").write_text("here before")
    fails(segtrain(*TINY, "hydra.run.dir=mine", "seed=x"), "seed=x")
    assert Path("mine/notes.txt").is_file()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_network_that_is_not_finite(segtrain, tmp_path, value):
    file = untrained(tmp_path / "x.ckpt", *TINY)
    content = torch.load(file, weights_only=True)
    name = "model.head.classifier.weight"
    name = name if name in content["state_dict"] else next(iter(content["state_dict"]))
    content["state_dict"][name].view(-1)[0] = value
    torch.save(content, file)
    write_pair(tmp_path, "a", np.zeros((32, 32), np.uint8))
    for command in (["predict", f"input={tmp_path / 'images'}"], ["evaluate", "report=null"],
                    ["export", "format=safetensors"]):  # fmt: skip
        fails(segtrain(*command, f"checkpoint={file}"), str(file), "not finite",
              name.removeprefix("model."))  # fmt: skip


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        (["batch_size=5", "trainer.accumulate_grad_batches=2"], ["batch_size=5", "multiple of 2"]),
        (["trainer.max_steps=null"], ["trainer.max_steps", "trainer.max_epochs"]),
        (["trainer.max_epochs=2"], ["trainer.max_steps", "trainer.max_epochs"]),
        (["architecture.backbone.name=resnet19"], ["resnet19", "nearest"]),
        (["architecture.backbone.weights=gone.pth"], ["gone.pth"]),
        (["weights=gone.pth"], ["gone.pth"]),
        (["+architecture.colour=red"], ["DeepLabv3", "colour"]),
        (["loss.pixel.class_weights=[1,2,3]"], ["class_weights has 3 entries for 8 classes"]),
        (["inference.logit_adjustment=[1]"], ["logit_adjustment has 1 entries", "star"]),
        (["trainer.max_steps=many"], ["trainer.max_steps", "many"]),
        (["callback=[]"], ["'decay': 0.99", "not chosen"]),
        (["loss.pixel.class_weights=even"], ["class_weights=even", "median_frequency"]),
        (["dataset.splits.val=holdout"], ["holdout", "train, val, test"]),
        (["dataset.splits.test=holdout"], ["holdout", "train, val, test"]),
    ],
    ids=lambda value: value[-1],
)
def test_settings(segtrain, overrides, parts):
    fails(segtrain(*TINY, *overrides), *parts)


def test_mask_value_outside_the_map(segtrain, folder_set):
    mask = np.zeros((40, 48), np.uint8)
    mask[7, 7] = 33
    write_pair(folder_set, "p4", mask)
    fails(segtrain(*own(folder_set)), "p4.png", "33", "0->sky")


def test_size_mismatch(segtrain, folder_set):
    write_pair(folder_set, "p4", np.zeros((40, 48), np.uint8), image_size=(41, 48))
    fails(segtrain(*own(folder_set)), "p4.png", "48x40", "48x41")


def test_truncated_jpeg_before_the_first_step(segtrain, folder_set):
    path = folder_set / "images" / "p4.jpg"
    path.write_bytes(path.read_bytes()[:300])
    fails(segtrain(*own(folder_set)), "p4.jpg")


@pytest.mark.parametrize("workers", [0, 1])
def test_truncated_jpeg_that_the_preflight_did_not_sample(segtrain, folder_set, workers):
    path = folder_set / "images" / "p3.jpg"
    path.write_bytes(path.read_bytes()[:300])
    settings = ["dataset.preflight_masks=2", f"dataset.num_workers={workers}"]
    err = fails(segtrain(*own(folder_set, *settings)), "p3.jpg", "truncated")
    assert len(err.splitlines()) == 1


def test_empty_split(segtrain, folder_set):
    (folder_set / "val.txt").write_text("\n")
    fails(segtrain(*own(folder_set)), "val.txt", "empty")


def test_binary_masks_of_0_and_255(segtrain, folder_set):
    for index in range(8):
        mask = np.zeros((40, 48), np.uint8)
        mask[5:20, 5:20] = 255
        write_pair(folder_set, f"p{index}", mask)
    (folder_set / "classes.txt").write_text("background\nobject\n")
    fails(segtrain(*own(folder_set)), "only ['background']", "255 object")
    (folder_set / "classes.txt").write_text("0 background\n255 object\n")
    assert segtrain(*own(folder_set))[0] == 0


def test_wrong_checkpoint_for_the_architecture(segtrain):
    assert segtrain(*TINY)[0] == 0
    run = only_run()
    best = run / "checkpoints" / "best.ckpt"
    err = fails(
        segtrain(*TINY, f"weights={best}", "architecture.backbone.name=resnet18"),
        "does not fit this architecture (DeepLabv3)",
        "of another shape",
    )
    assert "best.ckpt" in err
    fails(segtrain(f"resume={run}", "trainer.max_stepz=3"), "max_stepz", "max_steps")
    fails(segtrain("evaluate", f"checkpoint={run / 'results.json'}"), "results.json")


@pytest.mark.parametrize(
    "change", ["optimizer.lr=0.5", "batch_size=2", "seed=3", "loss.aux_weight=1", "weights=x.ckpt"]
)
def test_a_resumed_run_keeps_what_it_was_started_with(segtrain, change):
    """Some of it would be ignored, as the checkpoint has it, and yet be recorded."""
    assert segtrain(*TINY, "trainer.max_steps=1")[0] == 0
    run = only_run()
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    key = change.partition("=")[0].partition(".")[0]
    fails(segtrain(f"resume={run}", change, "trainer.max_steps=2"), change, f"keeps its {key}")
    assert before == {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}


def test_a_run_that_is_done_and_one_that_never_saved(segtrain):
    assert segtrain(*TINY, "trainer.max_steps=1")[0] == 0
    run = only_run()
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    code, out, _ = segtrain(f"resume={run}")
    assert code == 0
    assert "is done" in out
    assert before == {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    (run / "checkpoints/last.ckpt").unlink()
    fails(segtrain(f"resume={run}"), "ended before it was first saved")


def test_more_processes_than_images(segtrain):
    fails(
        segtrain(*TINY, "dataset.source.num_images.val=1", "trainer.devices=2"),
        "split 'val' has 1 images for 2 processes",
    )


def test_traceback_on_request(segtrain, monkeypatch):
    monkeypatch.setenv("SEGTRAIN_TRACEBACK", "1")
    code, _, err = segtrain("resume=nowhere")
    assert code == 1
    assert "Traceback" in err


@pytest.mark.parametrize(
    ("module", "expected"),
    [("my_network_here", "lies in this folder.*python -m segtrain"), ("nowhere", "on PYTHONPATH")],
)
def test_own_code_that_is_not_found_says_how(segtrain, monkeypatch, module, expected):
    """The console script does not look into the current folder, as python -m does."""
    Path("my_network_here.py").write_text("class Loss: pass\n")
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place])
    code, _, err = segtrain(*TINY, f"loss.pixel._target_={module}.Loss")
    assert code == 2
    assert re.search(expected, err, re.DOTALL)
