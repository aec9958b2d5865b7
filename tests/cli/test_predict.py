"""`segtrain predict`: what it writes, what it skips, and what it refuses."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from predicting import COMMAND, DETECTOR, PANOPTIC, picture, write_run, write_video
from torchvision.models import segmentation

from segtrain import load, masks
from segtrain.cli.main import main
from segtrain.dataset.labels import SHAPES
from segtrain.report import video


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "semantic")


KEPT = {"manifest.jsonl", "predict.yaml", ".manifest.lock"}  # of what was done, in every output


def files(folder) -> set[str]:
    found = {str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file()}
    return found - KEPT


def results(*stems: str) -> set[str]:
    return {stem + ending for stem in stems for ending in (".png", "_overlay.jpg", ".json")}


def test_one_picture(segtrain, run):
    path = picture("dog.png")
    code, out, err = segtrain("predict", f"run={run}", f"input={path}", "device=cpu")
    assert code == 0, err
    (folder,) = Path("outputs/predict").iterdir()
    assert files(folder) == results("dog") | {"config.yaml", "run.log"}
    expected = load(run, device="cpu")(path)
    stored = Image.open(folder / "dog.png")
    assert stored.mode == "P"
    assert np.array_equal(np.asarray(stored), expected.labels)
    assert stored.getpalette()[: 3 * 8] == [v for colour in SHAPES.palette for v in colour]
    said = json.loads((folder / "dog.json").read_text())
    assert said["input"] == "dog.png"
    assert said["model"] == "test"
    assert [entry["name"] for entry in said["classes"]] == list(expected.names)
    assert expected.names[0] in out
    assert str(folder) in out


def test_folder_with_the_same_names_below(segtrain, run):
    for name in ("a.png", "a.jpg", "b.jpg", "sub/a.png", "sub/deep/a.png", ".hidden.png"):
        picture(f"in/{name}", seed=len(name))
    Path("in/notes.txt").write_text("not a picture")
    code, _, err = segtrain("predict", f"run={run}", "input=in", "output=out")
    assert code == 0, err
    assert files("out") == results("a.png", "a.jpg", "b", "sub/a", "sub/deep/a")
    sizes = {np.asarray(Image.open(f"out/{name}.png")).shape for name in ("a.png", "sub/deep/a")}
    assert sizes == {(48, 64)}
    # Results below the input are no input of the next time.
    for _ in range(2):
        assert segtrain("predict", f"run={run}", "input=in", "output=in/out")[0] == 0
    assert files("in/out") == files("out")


def test_patterns_and_lists(segtrain, run):
    for name in ("in/x/a.png", "in/y/a.png", "in/y/b.jpg", "in/y/c.txt"):
        picture(name) if name[-3:] != "txt" else Path(name).write_text("x")
    assert segtrain("predict", f"run={run}", "input=in/**/a*", "output=one")[0] == 0
    assert files("one") == results("x/a", "y/a")
    assert segtrain("predict", f"run={run}", "input=in/y/*", "output=two")[0] == 0
    assert files("two") == results("a", "b")
    Path("in/list.txt").write_text("y/b.jpg\n\nin/x/a.png\n")
    assert segtrain("predict", f"run={run}", "input=in/list.txt", "output=three")[0] == 0
    assert files("three") == results("x/a", "y/b")


@pytest.mark.parametrize("name", ["my photo (1).png", "a,b=[c]{d}.png", "it's ü:~.png", "a.b.png"])
def test_names_are_taken_as_they_are(segtrain, run, name):
    picture(f"in put/{name}")
    code, _, err = segtrain("predict", f"run={run}", f"input=in put/{name}", "output=my, out")
    assert code == 0, err
    assert files("my, out") == results(name.removesuffix(".png"))


def test_masks_and_cutouts_of_classes(segtrain, run):
    path = picture("a.png")
    prediction = load(run, device="cpu")(path)
    name = prediction.names[0]
    code, _, err = segtrain(
        "predict", f"run={run}", "input=a.png", "output=out", f"classes=[{name}]"
    )
    assert code == 0, err
    assert files("out") == results("a") | {f"a_{name}_mask.png", f"a_{name}_cutout.png"}
    mask = np.asarray(Image.open(f"out/a_{name}_mask.png"))
    assert np.array_equal(mask, prediction.mask(name) * 255)
    assert Image.open(f"out/a_{name}_cutout.png").mode == "RGBA"


def test_hard_pictures_and_those_that_are_none(segtrain, run):
    picture("in/exif.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open("in/exif.jpg").save("in/exif.jpg", exif=exif)
    image = Image.open(picture("in/plain.png"))
    image.convert("CMYK").save("in/cmyk.jpg")
    image.convert("L").save("in/grey.png")
    image.convert("RGBA").save("in/rgba.png")
    image.convert("P").save("in/palette.png")
    Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) << 8).save("in/deep.png")
    Image.new("RGB", (1, 1)).save("in/dot.png")
    Path("in/text.jpg").write_text("a poem")
    Path("in/cut.jpg").write_bytes(Path("in/exif.jpg").read_bytes()[:700])
    Path("in/empty.png").touch()
    code, out, err = segtrain("predict", f"run={run}", "input=in", "output=out")
    assert code == 1
    good = ("cmyk", "deep", "dot", "exif", "grey", "palette", "plain", "rgba")
    assert files("out") == results(*good)
    for name in ("text.jpg", "cut.jpg", "empty.png"):
        assert f"skipped     in/{name}: " in out
    assert "3 of 11 inputs were skipped" in err
    assert Image.open("out/exif.png").size == (48, 64)
    said = json.loads(Path("out/exif.json").read_text())
    assert (said["width"], said["height"]) == (48, 64)
    assert (said["orientation"], said["exif_orientation"]) == ("upright", 6)
    assert Image.open("out/dot.png").size == (1, 1)


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["input=a.png"], ["run=<run folder>", "weights=torchvision/<name>"]),
        (["run=RUN"], ["input="]),
        (["run=RUN", "input=gone"], ["gone", "no such file or folder"]),
        (["run=RUN", "input=empty"], ["no picture", ".jpg"]),
        (["run=RUN", "input=*.webp"], ["no picture"]),
        (["run=RUN", "input=poem.jpg"], ["poem.jpg: not a readable image (6 bytes)"]),
        (["run=RUN", "input=poems"], ["nothing could be read", "poem1.jpg", "poem2.png"]),
        (["run=RUN", "input=poem.mp4"], ["poem.mp4: not a readable video"]),
        (["run=RUN", "input=folder", "output=folder"], ["folder", "choose another"]),
        (["run=RUN", "input=folder/a.png", "output=folder"], ["choose another"]),
        (["run=RUN", "input=a.png", "output=poem.jpg"], ["output=poem.jpg", "File exists"]),
        (["run=RUN", "input=a.png", "output=poem.jpg/x"], ["output=poem.jpg/x"]),
        (["run=RUN", "input=a.png", "classes=[dog]"], ["no class 'dog'", "circle"]),
        (["run=RUN", "checkpoint=x", "input=a.png"], ["give one of"]),
        (["run=gone", "input=a.png"], ["gone"]),
        (["checkpoint=poem.jpg", "input=a.png"], ["poem.jpg", "not a readable checkpoint"]),
        (["model=folder", "input=a.png"], ["folder", "config.json and model.safetensors"]),
        (["weights=torchvision/lraspp_mobilenet_v3_large", "input=a.png"], ["deeplabv3_resnet50"]),
        (["run=RUN", "input=a.png", "min_scor=1"], ["unknown key 'min_scor'", "min_score"]),
        (["run=RUN", "input=a.png", "inference=multi"], ["unknown inference 'multi'"]),
        (["run=RUN", "input=a.png", "inference=detect"], ["network for 'semantic'"]),
        (["run=RUN", "input=a.png", "device=cuda:9"], ["device=cuda:9", "cpu"]),
    ],
    ids=lambda value: value[-1] if "=" in value[-1] else "",
)
def test_mistakes(segtrain, run, arguments, parts):
    for name in ("a.png", "folder/a.png"):
        picture(name)
    Path("empty").mkdir()
    for name in ("poem.jpg", "poem.mp4", "poems/poem1.jpg", "poems/poem2.png"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text("a poem")
    arguments = [argument.replace("RUN", str(run)) for argument in arguments]
    code, _, err = segtrain("predict", *arguments)
    assert code == 2
    assert "Traceback" not in err
    for part in parts:
        assert part in err
    assert files("folder") == {"a.png"}


def test_video(segtrain, run):
    Path("in").mkdir()
    write_video("in/drive.mp4")
    picture("in/drive.png")
    code, out, err = segtrain("predict", f"run={run}", "input=in", "output=out")
    assert code == 0, err
    assert "7 frames" in out
    videos = {"drive.mp4_overlay.mp4", "drive.mp4.jsonl"}
    assert files("out") == results("drive.png") | videos
    lines = [json.loads(line) for line in Path("out/drive.mp4.jsonl").read_text().splitlines()]
    assert [line["frame"] for line in lines] == list(range(7))
    assert lines[5]["seconds"] == 1.0
    assert sum(entry["share"] for entry in lines[0]["classes"]) == pytest.approx(1, abs=1e-5)
    overlay = video.VideoFile(Path("out/drive.mp4_overlay.mp4"))
    frames = list(overlay)
    assert len(frames) == 7
    assert overlay.rate == 5
    assert frames[0].shape[0] > 48  # with a legend
    assert frames[0].shape[1] >= 64


def test_video_without_an_encoder(segtrain, run, monkeypatch):
    write_video("drive.mp4")

    class NoEncoder:
        def __init__(self, *arguments):
            pass

        def isOpened(self):  # noqa: N802
            return False

        def release(self):
            pass

    monkeypatch.setattr(video.cv2, "VideoWriter", NoEncoder)
    code, _, err = segtrain("predict", f"run={run}", "input=drive.mp4", "output=out")
    assert code == 2
    assert "no encoder for mp4v" in err


def test_large_picture_goes_through_windows(segtrain, run):
    picture("wide.png", size=(201, 77))
    window = ["inference=sliding", "inference.window.crop_size=[33,33]",
              "inference.window.stride=[20,20]"]  # fmt: skip
    for name, most in (("all", 10**6), ("parts", 1000)):
        assert segtrain("predict", f"run={run}", "input=wide.png", f"output={name}",
                        f"max_pixels={most}", *window)[0] == 0  # fmt: skip
    whole, parts = (np.asarray(Image.open(f"{name}/wide.png")) for name in ("all", "parts"))
    assert np.array_equal(whole, parts)


def test_instances(segtrain, tmp_path):
    run = write_run(tmp_path / "run", *DETECTOR, "inference.short_sides=[64]",
                    "inference.long_side=128", "inference.min_score=0.0")  # fmt: skip
    picture("a.png")
    code, _, err = segtrain("predict", f"run={run}", "input=a.png", "output=out", "min_score=0.0",
                            "classes=[star]")  # fmt: skip
    assert code == 0, err
    assert {"a_overlay.jpg", "a.json", "a_star_mask.png"} <= files("out")
    said = json.loads(Path("out/a.json").read_text())
    assert said["task"] == "instance"
    prediction = load(run, device="cpu", min_score=0.0)("a.png")
    assert len(said["instances"]) == len(prediction.codes) > 0
    codes = [entry["mask"]["counts"].encode() for entry in said["instances"]]
    assert np.array_equal(masks.decode(codes, (48, 64)), prediction.masks)
    stars = [code for code, entry in zip(codes, said["instances"], strict=True)
             if entry["name"] == "star"]  # fmt: skip
    union = masks.decode(stars, (48, 64)).any(0) if stars else np.zeros((48, 64), bool)
    assert np.array_equal(np.asarray(Image.open("out/a_star_mask.png")) > 0, union)
    assert segtrain("predict", f"run={run}", "input=a.png", "output=none")[0] == 0


def test_segments(segtrain, tmp_path):
    run = write_run(tmp_path / "run", *PANOPTIC)
    picture("in/a.png")
    picture("in/sub/b.jpg", seed=1)
    write_video("in/drive.mp4", count=2)
    code, out, err = segtrain("predict", f"run={run}", "input=in", "output=out", "classes=[sky]")
    assert code == 0, err
    endings = ("_panoptic.png", "_overlay.jpg", ".json", "_sky_mask.png")
    assert {name + ending for name in ("a", "sub/b") for ending in endings} <= files("out")
    assert {"drive_overlay.mp4", "drive.jsonl"} <= files("out")
    said, expected = json.loads(Path("out/a.json").read_text()), load(run, device="cpu")("in/a.png")
    assert said["task"] == "panoptic"
    assert [entry["id"] for entry in said["segments_info"]] == [
        segment.number for segment in expected.segments
    ]
    assert len(expected.segments) > 1
    ids = np.asarray(Image.open("out/a_panoptic.png")).astype(int) @ (1, 256, 65536)
    assert np.array_equal(ids, expected.map)
    mask = np.asarray(Image.open("out/a_sky_mask.png"))
    assert np.array_equal(mask == 255, expected.mask("sky"))
    frames = [json.loads(line) for line in Path("out/drive.jsonl").read_text().splitlines()]
    assert [frame["frame"] for frame in frames] == [0, 1]
    assert frames[0]["segments_info"]
    assert expected.segments[0].name in out
    again = segtrain("predict", f"run={run}", "input=in", "output=out", "classes=[sky]")
    assert "3 of 3 inputs are finished" in again[1]


def test_torchvision_by_name_with_random_weights(segtrain):
    """The README's command, with other weights of the same names and shapes."""
    torch.manual_seed(0)
    model = segmentation.deeplabv3_resnet101(weights=None, weights_backbone=None, aux_loss=True)
    torch.save(model.state_dict(), "other.pth")
    picture("dog.jpg")
    code, _, err = segtrain(*COMMAND, "weights_file=other.pth", "output=out", "short_side=64")
    assert code == 0, err
    assert results("dog") | {"dog_dog_mask.png"} <= files("out")
    assert json.loads(Path("out/dog.json").read_text())["model"] == COMMAND[1].partition("=")[2]


@pytest.mark.parametrize("given", ["in", "in/*", "in/pipe.png"])
def test_what_is_no_regular_file_is_refused_unopened(segtrain, run, given):
    picture("in/a.png")
    os.mkfifo("in/pipe.png")
    Path("in/folder.png").mkdir()
    picture("in/folder.png/b.png")
    code, out, err = segtrain("predict", f"run={run}", f"input={given}", "output=out", "device=cpu")
    assert code == (2 if given == "in/pipe.png" else 1)  # some were read
    assert "pipe.png: no regular file (a named pipe)" in out + err
    if given != "in/pipe.png":
        assert "folder.png: no regular file (Is a directory)" in out + err
        assert files("out") >= results("a")


@pytest.mark.parametrize("way", ["run", "exported", "own range"])
def test_the_white_level_of_the_training_holds_for_predictions(tmp_path, run, way):
    """A dark picture of a 12-bit camera is as dark as in the training."""
    grey = np.tile(np.arange(64, dtype=np.uint16), (48, 1))
    Image.fromarray(grey * 16).save("dark.png")
    source = run / "checkpoints/best.ckpt"
    if way != "own range":
        content = torch.load(source, weights_only=True)
        content["segtrain"]["config"]["dataset"]["source"]["white_level"] = 4095
        source = tmp_path / "white.ckpt"
        torch.save(content, source)
    if way == "exported":
        assert main(["export", f"checkpoint={source}", "format=safetensors", "output=exported",
                     "compare_on=dark.png"]) == 0  # fmt: skip
        source = tmp_path / "exported"
    seen = load(source, device="cpu")("dark.png").image[..., 0]
    assert np.array_equal(seen, grey if way != "own range" else grey * 4)
