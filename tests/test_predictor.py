"""`segtrain.load` and `segtrain.build`, and what their results are."""

import copy
import inspect
import json
import subprocess
import sys

import hydra
import numpy as np
import predicting
import pytest
import torch
import torch.nn.functional as F
import yaml
from conftest import TINY, only_run, results_of
from omegaconf import OmegaConf
from PIL import Image
from predicting import DETECTOR, PROPOSALS, SEMANTIC, torchvisions_fcn, write_run
from safetensors.torch import save_file

import segtrain as package
from segtrain import UserError, build, load
from segtrain.architecture.weights import read_state_dict
from segtrain.configuration.folder import conf_dir
from segtrain.dataset.labels import SHAPES
from segtrain.dataset.shapes import shapes
from segtrain.inference import strips
from segtrain.metric.confusion import ConfusionMatrix, confusion_matrix, scores


def noise(height=48, width=64, seed=0) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return np.array(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run folder of each kind of network."""
    root = tmp_path_factory.mktemp("runs")
    kinds = {"semantic": SEMANTIC, "instance": DETECTOR, "proposal": PROPOSALS}
    return {name: write_run(root / name, *chosen) for name, chosen in kinds.items()}


@pytest.fixture(scope="module")
def predictor(runs):
    return load(runs["semantic"], device="cpu")


def test_labels_are_those_of_the_evaluation(segtrain):
    """The matrix of a split, from predictions one by one, is the evaluation's to the last pixel."""
    assert segtrain(*TINY, "trainer.precision=32-true")[0] == 0
    run = only_run()
    predict = load(run, device="cpu")
    source = shapes(split="test", labels=SHAPES, num_images={"train": 12, "val": 7, "test": 7},
                    size=[32, 32], seed=0)  # fmt: skip
    matrix = ConfusionMatrix(8)
    for index in range(len(source)):
        image, mask = source.read(index)
        found = torch.from_numpy(predict(image).labels)
        matrix.update(confusion_matrix(found, torch.from_numpy(mask), 8, SHAPES.ignore_index))
    metrics = results_of(run)["metrics"]
    result = scores(matrix.compute())
    assert result.miou == metrics["miou"]
    assert list(result.per_class_iou) == list(metrics["per_class_iou"].values())


def exported(run, folder):
    """The folder that `segtrain export` would write of a run."""
    content = torch.load(run / "checkpoints/best.ckpt", weights_only=True)
    config = content["segtrain"]["config"]
    folder.mkdir()
    state = {k.removeprefix("model."): v.contiguous() for k, v in content["state_dict"].items()}
    save_file(state, folder / "model.safetensors")
    description = {key: config[key] for key in ("architecture", "inference", "experiment")}
    labels = content["segtrain"]["labels"]
    (folder / "config.json").write_text(json.dumps(description | {"labels": labels}))
    return folder


def test_every_source_gives_the_same_labels(runs, predictor, tmp_path):
    expected = predictor(noise()).labels
    assert len(np.unique(expected)) > 2
    checkpoint = runs["semantic"] / "checkpoints" / "best.ckpt"
    content = torch.load(checkpoint, weights_only=True)
    del content["segtrain"]["labels"]  # as those of older versions
    torch.save(content, tmp_path / "old.ckpt")
    folder = exported(runs["semantic"], tmp_path / "exported")
    for source in (checkpoint, str(checkpoint), folder, folder / "model.safetensors",
                   tmp_path / "old.ckpt"):  # fmt: skip
        other = load(source, device="cpu")
        assert np.array_equal(other(noise()).labels, expected)
        assert other.labels == SHAPES
        assert other.config["experiment"] == "test"


def test_best_checkpoint_else_the_last(runs, tmp_path):
    (tmp_path / "checkpoints").mkdir()
    content = (runs["semantic"] / "checkpoints/best.ckpt").read_bytes()
    (tmp_path / "checkpoints/last.ckpt").write_bytes(content)
    assert load(tmp_path, device="cpu").task == "semantic"


@pytest.mark.parametrize(
    ("source", "settings", "message"),
    [
        ("nowhere", {}, "nowhere"),
        ("other.pth", {}, "not a checkpoint of segtrain, .*weights=torchvision/<name>"),
        (".", {}, "neither a run folder"),
        ("torchvision/deeplabv3_mobilenet_v3_large", {}, "torchvision/fcn_resnet50"),
        (None, {"device": "cuda:7"}, "cuda:7"),
        (None, {"device": "abacus"}, "abacus"),
        (None, {"precision": "8-bit"}, "expected one of auto, 32-true"),
        (None, {"inference": "multiscal"}, "nearest: multiscale"),
        (None, {"inference": "detect"}, "is a network for 'semantic'"),
        (None, {"overrides": ["inference.flop=true"]}, "flop"),
        (None, {"weights_file": "x.pth"}, "weights_file is for .*such as torchvision/"),
    ],
    ids=str,
)  # fmt: skip
def test_what_cannot_be_loaded_is_said(runs, source, settings, message):
    torch.save({"conv.weight": torch.zeros(1)}, "other.pth")
    with pytest.raises(UserError, match=message):
        load(source or runs["semantic"], **settings)


@pytest.mark.parametrize("damage", ["text", "labels", "inference"])
def test_damaged_exports_are_refused(runs, tmp_path, damage):
    folder = exported(runs["semantic"], tmp_path / "exported")
    config = json.loads((folder / "config.json").read_text())
    config.pop(damage, None)
    (folder / "config.json").write_text("{" if damage == "text" else json.dumps(config))
    with pytest.raises(UserError, match="config.json"):
        load(folder)


@pytest.mark.parametrize(
    "target",
    ["os.system", "segtrain.architecture.weights.logging.os.system",
     "segtrain.inference.detect.product", "segtrain.inference.gone.Net", "predicting.Topmost"],
)  # fmt: skip
def test_files_do_not_run_code_from_elsewhere(runs, tmp_path, target):
    folder = exported(runs["semantic"], tmp_path / "exported")
    config = json.loads((folder / "config.json").read_text())
    config["inference"] = {"_target_": "predicting.Topmost"}
    config["architecture"]["backbone"]["timm_arguments"]["x"] = [{"_target_": target}]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=target):
        load(folder, device="cpu")


def test_trusted_files_may(runs, tmp_path):
    folder = exported(runs["semantic"], tmp_path / "exported")
    config = json.loads((folder / "config.json").read_text())
    config["inference"] = {"_target_": "predicting.Topmost"}
    (folder / "config.json").write_text(json.dumps(config))
    labels = load(folder, device="cpu", trust_code=True)(noise()).labels
    assert (labels == (np.arange(48) % 8)[:, None]).all()
    assert predicting.Topmost.task == "semantic"


def test_protocol_by_name_and_by_value(runs):
    named = load(runs["semantic"], device="cpu", inference="multiscale",
                 overrides=["inference.scales=[0.5,1]"])  # fmt: skip
    changed = load(runs["semantic"], device="cpu",
                   overrides=["inference.scales=[0.5,1]", "inference.flip=true"])  # fmt: skip
    assert named.inference.protocol["scales"] == [0.5, 1]
    assert np.array_equal(named(noise()).labels, changed(noise()).labels)
    window = ["inference/window=sliding", "inference.window.stride=[99,99]"]
    windowed = load(runs["semantic"], device="cpu", inference="whole", overrides=window)
    assert windowed(noise()).protocol["stride"] == [99, 99]


def test_a_batch_of_mixed_sizes_is_each_alone(predictor):
    images = [noise(48, 64), noise(33, 47, 1), noise(48, 64, 2), noise(1, 1), noise(3, 200)]
    for image, together in zip(images, predictor.batch(images), strict=True):
        assert together.labels.shape == image.shape[:2]
        assert together.labels.dtype == np.uint8
        assert np.array_equal(together.labels, predictor(image).labels)
    assert predictor.batch([]) == []


def test_probabilities(runs, predictor):
    for one in (predictor, load(runs["semantic"], device="cpu", inference="multiscale")):
        prediction = one(noise())
        assert prediction.probabilities.shape == (8, 48, 64)
        assert prediction.probabilities.dtype == np.float32
        np.testing.assert_allclose(prediction.probabilities.sum(0), 1, atol=1e-5)
        assert np.array_equal(prediction.probabilities.argmax(0), prediction.labels)


def test_short_side_resizes_and_labels_come_back(runs, predictor):
    one = load(runs["semantic"], device="cpu", short_side=24)
    prediction = one(noise())
    small = np.asarray(Image.fromarray(noise()).resize((32, 24), Image.Resampling.BOX))
    expected = torch.from_numpy(predictor.probabilities(small)).log()[None]
    expected = F.interpolate(expected, (48, 64), mode="bilinear")[0].argmax(0).numpy()
    assert np.mean(prediction.labels == expected) > 0.99
    assert prediction.protocol["short_side"] == 24
    assert np.mean(prediction.probabilities.argmax(0) == prediction.labels) > 0.97


@pytest.mark.parametrize("width", [64, 203])
def test_large_pictures_are_those_of_the_sliding_window(runs, monkeypatch, width):
    window = ["inference.window.crop_size=[33,33]", "inference.window.stride=[20,15]"]
    image = noise(77, width)
    sliding = {"device": "cpu", "inference": "sliding", "overrides": window}
    expected = load(runs["semantic"], **sliding)(image)
    monkeypatch.setattr(strips, "SCORES", 8 * 33 * 60)  # several strips
    large = load(runs["semantic"], **sliding, max_pixels=1000)(image)
    assert np.array_equal(large.labels, expected.labels)
    assert large.protocol == expected.protocol
    with pytest.raises(UserError, match="max_pixels=1000"):
        _ = large.probabilities


def test_large_pictures_of_another_scale(runs, caplog):
    settings = {"device": "cpu", "inference": "whole", "max_pixels": 1000}
    overrides = ["inference.scales=[0.5]", "inference.flip=true"]
    one = load(runs["semantic"], **settings, overrides=overrides)
    with caplog.at_level("INFO", "segtrain"):
        prediction = one(noise(77, 99))
    assert "99x77 pixels, more than max_pixels: by sliding window, without flip" in caplog.text
    assert prediction.labels.shape == (77, 99)
    assert prediction.protocol["scales"] == [0.5]
    assert prediction.protocol["inference"] == "sliding"


@pytest.mark.parametrize("inference", ["whole", "sliding"])
def test_large_pictures_are_looked_at_where_exponentials_are_averaged(runs, inference):
    sums = ["inference.scores=exp_sum", "inference.flip=true"]
    if inference == "sliding":
        sums += [
            "inference.window.crop_size=[33,33]",
            "inference.window.stride=[20,20]",
            "inference.window.average=exponentials",
            "inference.window.mirror=crop",
        ]
    one = load(runs["semantic"], device="cpu", inference=inference, overrides=sums, max_pixels=1000)
    prediction = one(noise(77, 99))
    assert prediction.labels.shape == (77, 99)
    assert prediction.protocol["inference"] == "sliding"


def test_large_pictures_are_seen_at_the_size_of_the_test(runs):
    """Their scores are not at their own size, and no window is needed where they are small then."""
    settings = {"device": "cpu", "inference": "whole", "overrides": ["inference.size={short:24}"]}
    expected = load(runs["semantic"], **settings)(noise())
    large = load(runs["semantic"], **settings, max_pixels=1000)(noise())
    assert large.labels.shape == (48, 64)
    assert np.mean(large.labels == expected.labels) > 0.95
    assert large.protocol == expected.protocol
    assert large.protocol["size"] == {"short": 24}


@pytest.mark.parametrize("size", [(1, 1), (9, 5), (64, 20), (3, 33)])
def test_enlarged_labels_equal_those_of_enlarged_scores(monkeypatch, size):
    small = torch.randn(5, 9, 7)
    monkeypatch.setattr(strips, "SCORES", 5 * size[1] * 4)
    small[0, :3, :2] = -torch.inf  # the log of a probability of zero
    expected = F.interpolate(small.clamp(min=-1e30)[None], size, mode="bilinear")[0].argmax(0)
    assert np.array_equal(strips.enlarged_labels(small, size), expected.numpy())


@pytest.mark.parametrize("width", range(1, 90, 4))
def test_strips_have_all_windows_of_their_columns(width):
    for window, stride, widest in ((10, 7, 25), (10, 10, 1), (30, 1, 40), (5, 3, 1000)):
        done = 0
        starts = strips.window_starts(width, window, stride)
        for seen, finished in strips.strips(width, window, stride, widest):
            assert finished.start == done
            done = finished.stop
            own = strips.window_starts(seen.stop - seen.start, window, stride)
            touch = [s for s in starts if s < done and s + window > finished.start]
            assert [seen.start + s for s in own if seen.start + s < done
                    and seen.start + s + window > finished.start] == touch  # fmt: skip
        assert done == width


def test_bfloat16_and_float32_agree_on_nearly_all_pixels(runs, predictor):
    one = load(runs["semantic"], device="cpu", precision="bf16-mixed")
    assert one.dtype == torch.bfloat16
    assert np.mean(one(noise()).labels == predictor(noise()).labels) > 0.8


def test_semantic_prediction(predictor):
    prediction = predictor(noise())
    assert sum(prediction.shares.values()) == pytest.approx(1)
    assert list(prediction.shares.values()) == sorted(prediction.shares.values(), reverse=True)
    assert prediction.names == tuple(prediction.shares)
    name = prediction.names[1]
    mask = prediction.mask(name)
    assert mask.mean() == pytest.approx(prediction.shares[name])
    cutout = np.asarray(prediction.cutout(name))
    assert np.array_equal(cutout[..., 3], mask * np.uint8(255))
    assert np.array_equal(cutout[mask][:, :3], noise()[mask])
    assert (cutout[~mask] == 0).all()
    picture = prediction.palette_image()
    assert picture.mode == "P"
    assert np.array_equal(np.asarray(picture), prediction.labels)
    assert np.array_equal(np.asarray(picture.convert("RGB")), SHAPES.colorize(prediction.labels))
    with pytest.raises(UserError, match="nearest: circle"):
        prediction.mask("circel")


def test_overlay_shows_colours_and_a_legend(predictor):
    prediction = predictor(noise())
    plain = np.asarray(prediction.overlay(legend=False))
    assert plain.shape == (384, 512, 3)  # small pictures are enlarged
    full = np.asarray(prediction.overlay())
    assert full.shape[0] > 384
    assert np.array_equal(full[:384], plain)
    for name in prediction.names:
        colour = SHAPES.palette[SHAPES.names.index(name)]
        swatch = (255, 255, 255) if name == "background" else colour
        assert (full[384:] == swatch).all(-1).any(), name
    large = predictor(noise(20, 3000))
    assert large.overlay(legend=False).size == (1600, 11)


def test_saved_files(predictor, tmp_path):
    prediction = predictor(noise())
    present, absent = (
        prediction.names[0],
        next(n for n in SHAPES.names if n not in prediction.names),
    )
    files = prediction.save(tmp_path / "new", "a.b", [present, absent])
    assert [file.name for file in files] == [
        "a.b.png", "a.b_overlay.jpg", "a.b.json", f"a.b_{present}_mask.png",
        f"a.b_{present}_cutout.png", f"a.b_{absent}_mask.png",
    ]  # fmt: skip
    assert sorted(files) == sorted((tmp_path / "new").iterdir())
    assert np.array_equal(np.asarray(Image.open(files[0])), prediction.labels)
    assert set(np.unique(Image.open(files[3]))) == {0, 255}
    said = json.loads(files[2].read_text())
    assert (said["width"], said["height"], said["orientation"]) == (64, 48, "upright")
    assert [entry["name"] for entry in said["classes"]] == list(prediction.names)
    assert said["classes"][0]["share"] == pytest.approx(prediction.shares[present], abs=1e-6)
    assert tuple(said["classes"][0]["colour"]) == SHAPES.palette[SHAPES.names.index(present)]


def test_instances(runs, tmp_path):
    one = load(runs["instance"], device="cpu", min_score=0.0, overrides=[
        "inference.short_sides=[64]", "inference.long_side=128", "inference.min_score=0.0",
        "inference.max_detections=6"])  # fmt: skip
    prediction = one(noise())
    count = len(prediction.scores)
    assert 0 < count <= 6
    assert prediction.boxes.shape == (count, 4)
    assert prediction.boxes.min() >= 0
    assert (prediction.boxes <= [64, 48, 64, 48]).all()
    assert (np.diff(prediction.scores) <= 0).all()
    assert prediction.masks.shape == (count, 48, 64)
    assert prediction.masks.dtype == bool
    assert len(prediction.names) == count
    name = prediction.names[0]
    own = [n for n, other in enumerate(prediction.names) if other == name]
    assert np.array_equal(prediction.mask(name), prediction.masks[own].any(0))
    assert np.array_equal(np.asarray(prediction.cutout(0))[..., 3] > 0, prediction.masks[0])
    assert prediction.overlay().size == (512, 384)
    for which, message in ((count, f"no instance {count}"), ("dog", "no class 'dog'")):
        with pytest.raises(UserError, match=message):
            prediction.mask(which)
    files = prediction.save(tmp_path, "x", [name])
    said = json.loads(files[1].read_text())["instances"][0]
    x, y, width, height = said["box"]
    np.testing.assert_allclose([x, y, x + width, y + height], prediction.boxes[0], atol=0.02)
    assert said["mask"] == {"size": [48, 64], "counts": prediction.codes[0].decode()}
    assert load(runs["instance"], device="cpu", min_score=0.99)(noise()).names == ()


def test_instances_of_large_pictures(runs):
    sides = ["inference.short_sides=[64]", "inference.long_side=128", "inference.min_score=0.0"]
    settings = {"device": "cpu", "min_score": 0.0, "overrides": sides}
    image = noise(300, 403)
    whole, small = (load(runs["instance"], **settings, max_pixels=most)(image)
                    for most in (10**6, 20_000))  # fmt: skip
    assert small.masks.shape[1:] == (300, 403)
    np.testing.assert_allclose(small.boxes[0], whole.boxes[0], atol=40)
    assert small.image.shape == image.shape


def test_masks_of_instances_lie_in_their_boxes_as_the_protocol_says(runs):
    sides = ["inference.short_sides=[64]", "inference.long_side=128", "inference.min_score=0.0"]
    found = {
        frames: load(runs["instance"], device="cpu", min_score=0.0,
                     overrides=[*sides, f"inference.frames={frames}"])(noise())
        for frames in ("whole_pixels", "exact")
    }  # fmt: skip
    np.testing.assert_array_equal(found["exact"].boxes, found["whole_pixels"].boxes)
    assert found["exact"].codes != found["whole_pixels"].codes
    assert found["exact"].protocol["frames"] == "exact"
    assert "frames" not in found["whole_pixels"].protocol


def test_proposals(runs):
    sides = ["inference.short_side=64", "inference.long_side=128"]
    one = load(runs["proposal"], device="cpu", overrides=[*sides, "inference.max_proposals=20"])
    prediction = one(noise())
    assert len(prediction.codes) == 20
    assert set(prediction.names) == {"object"}
    assert prediction.overlay().size == (512, 384)
    assert "name" not in prediction.summary()["instances"][0]
    with pytest.raises(UserError, match="proposals have no class"):
        prediction.mask("circle")
    with pytest.raises(UserError, match="no probabilities of proposal networks"):
        one.probabilities(noise())


@pytest.fixture
def peer(monkeypatch, tmp_path):
    """torchvision's FCN with random weights, in place of the trained one."""
    model = torchvisions_fcn(65, 81)
    file = tmp_path / "peer" / "fcn_resnet50_coco-1167a1af.pth"
    file.parent.mkdir()
    torch.save(model.state_dict(), file)
    monkeypatch.setattr("segtrain.published.network.obtain", lambda row, given, key: given or file)
    return model.eval()


def test_torchvision_by_name_and_by_file(peer, tmp_path):
    image = noise(65, 81)
    own_size = ["inference.size=null"]
    fetched = load("torchvision/fcn_resnet50", device="cpu", overrides=own_size)
    prediction = fetched(image)
    assert fetched.labels.names[12] == "dog"
    with torch.no_grad():
        logits = peer(
            fetched.model.backbone.normalize(torch.from_numpy(image).permute(2, 0, 1)[None])
        )
    assert np.mean(logits["out"][0].argmax(0).numpy() == prediction.labels) > 0.999
    usual = load("torchvision/fcn_resnet50", device="cpu")
    assert usual.inference.size == {"short": 520}
    state = {k: v for k, v in peer.state_dict().items() if not k.startswith("aux_classifier.")}
    torch.save(state, tmp_path / "w.pth")
    filed = load("torchvision/fcn_resnet50", device="cpu", overrides=own_size,
                 weights_file=tmp_path / "w.pth")  # fmt: skip
    assert np.array_equal(filed(image).labels, prediction.labels)


def test_build(tmp_path):
    narrow = "+architecture.backbone.timm_arguments.channels=[8,8,8,8]"
    model = build("pspnet", backbone="resnet26", num_classes=5, overrides=[narrow])
    assert type(model).__name__ == "PSPNet"
    assert model.backbone.name == "resnet26"
    assert model.backbone.output_stride == 8  # the paper's
    assert model.eval()(torch.zeros(1, 3, 65, 65))["logits"].shape == (1, 5, 9, 9)
    torch.save(model.state_dict(), tmp_path / "w.pth")
    other = build("pspnet", backbone="resnet26", num_classes=5, overrides=[narrow],
                  weights=str(tmp_path / "w.pth"))  # fmt: skip
    assert torch.equal(other.head.classifier.weight, model.head.classifier.weight)
    mobile = build("deeplabv3", backbone="mobilenetv3_small_050", num_classes=5)
    assert mobile.backbone.name == "mobilenetv3_small_050"
    plain = build("linear", backbone="test_vit", num_classes=5)
    assert type(plain.backbone).__name__ == "PlainViT"
    pyramid = build("upernet", backbone="test_vit", num_classes=5)
    assert pyramid.backbone.strides == [4, 8, 16, 32]
    small = ["architecture.backbone.channels=[4,4,6,6,8]", "architecture.backbone.fc_channels=16"]
    vgg = build("fcn8s", backbone="vgg16", num_classes=2, overrides=small)
    assert type(vgg.backbone).__name__ == "VGG16"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"architecture": "pspnt"}, "unknown architecture 'pspnt'; nearest: pspnet"),
        ({"architecture": "pspnet", "backbone": "resnet5"}, "timm has no model 'resnet5'"),
        ({"architecture": "pspnet", "overrides": ["architecture.bin=3"]}, "nearest: bins"),
        ({"architecture": "pspnet", "backbone": "resnet18", "weights": "gone.pth"}, "gone.pth"),
    ],
    ids=str,
)
def test_what_cannot_be_built_is_said(settings, message):
    with pytest.raises(UserError, match=message):
        build(num_classes=5, **settings)


def test_works_inside_another_hydra_program(runs, tmp_path, monkeypatch):
    (tmp_path / "other.yaml").write_text("answer: 42\n")
    monkeypatch.setattr(sys, "argv", ["other", "hydra.run.dir=here"])
    seen = []

    @hydra.main(version_base="1.3", config_path=str(tmp_path), config_name="other")
    def main(cfg):
        seen.append(load(runs["semantic"], device="cpu")(noise()).labels)
        seen.append(hydra.core.hydra_config.HydraConfig.get().job.name)
        seen.append(OmegaConf.to_container(hydra.compose("other")))

    main()
    assert len(seen) == 3
    assert seen[2] == {"answer": 42}


def test_package_is_light_until_it_is_used():
    code = "import sys, segtrain; print('torch' in sys.modules, segtrain.UserError.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "UserError"]
    assert {"load", "build", "Predictor"} <= set(dir(package))
    with pytest.raises(AttributeError, match="lode"):
        _ = package.lode


def test_defaults_are_those_of_the_command():
    command = yaml.safe_load((conf_dir() / "predict.yaml").read_text())
    for name, parameter in inspect.signature(load).parameters.items():
        if name in command and name != "inference":
            assert command[name] == parameter.default, name


def test_a_checkpoint_says_its_labels(runs):
    entry = torch.load(runs["semantic"] / "checkpoints/best.ckpt", weights_only=True)["segtrain"]
    before = copy.deepcopy(entry["labels"])
    assert SHAPES.from_plain(json.loads(json.dumps(before))) == SHAPES
    assert read_state_dict(runs["semantic"] / "checkpoints/best.ckpt")
