"""`predict`: what a trained network says of pictures and videos, as pictures and JSON."""

import json
import logging
import textwrap
from pathlib import Path

from segtrain.cli.inputs import Input, find_inputs
from segtrain.dataset.progress import track
from segtrain.errors import RunStopped, UserError
from segtrain.loading import find_trained, make_predictor
from segtrain.prediction import Prediction
from segtrain.prediction.files import class_id, named, start_files
from segtrain.predictor import Predictor, Settings
from segtrain.report.video import VideoFile, VideoWriter

logger = logging.getLogger("segtrain")

SOURCES = ("run", "checkpoint", "model", "weights")
SHOWN = 20  # inputs of which the end says what they show


def run(config: dict, run_dir: Path) -> None:
    """Writes the results of every input into the folder `output`, or else into `run_dir`.

    Raises:
        UserError: there is nothing to predict on or to predict with, or no input can be read.
        RunStopped: some inputs could not be read; exit code 1. The others' results are there.
    """
    if config["input"] is None:
        raise UserError("give input=<picture, video, folder, pattern or .txt list>")
    output = run_dir if config["output"] is None else Path(config["output"])
    inputs = find_inputs(str(config["input"]), output)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"output={output}: no such folder can be made ({error.strerror})") from None
    predictor = find_predictor(config)
    classes = [str(name) for name in config["classes"]]
    require_classes(predictor, classes)
    said, skipped = [], []
    one_video = len(inputs) == 1 and inputs[0].is_video
    for one in inputs if one_video else track(inputs, len(inputs), "predicting"):
        try:
            if one.is_video:
                said.append(predict_video(predictor, one, output, shows_bar=one_video))
            else:
                said.append(predict_picture(predictor, one, output, classes))
        except UserError as error:
            skipped.append(str(error))
    finish(said, skipped, output)


def find_predictor(config: dict) -> Predictor:
    """The network that the configuration names.

    Raises:
        UserError: it names none or several, or the named one cannot be used.
    """
    given = [config[key] for key in SOURCES if config[key] is not None]
    if len(given) != 1:
        raise UserError("give one of run=<run folder>, checkpoint=<file>, model=<exported folder> "
                        "and weights=torchvision/<name>")  # fmt: skip
    trained = find_trained(str(given[0]), config["weights_file"])
    side = config["short_side"]
    settings = Settings(
        device=config["device"],
        precision=str(config["precision"]),
        min_score=config["min_score"],
        max_pixels=config["max_pixels"],
        short_side=trained.short_side if side == "auto" else side,
    )
    return make_predictor(trained, config.get("inference"), settings, config["trust_code"])


def require_classes(predictor: Predictor, classes: list[str]) -> None:
    """Refuses classes that the network does not know.

    Raises:
        UserError: names the nearest.
    """
    if classes and predictor.task == "proposal":
        raise UserError("classes=...: proposals have no class")
    for name in classes:
        class_id(predictor.labels, name)


def predict_picture(predictor: Predictor, one: Input, folder: Path, classes: list[str]) -> str:
    """Writes the results of a picture, and says what it shows.

    Raises:
        UserError: it cannot be read.
    """
    prediction = predictor(one.path)
    prediction.save(folder, one.stem, classes, about=about(predictor, one))
    return f"{one.path}: {in_words(prediction)}"


def predict_video(predictor: Predictor, one: Input, folder: Path, shows_bar: bool) -> str:
    """Writes overlays of all frames as a video, and a line of JSON for each frame.

    Raises:
        UserError: the video cannot be read or written.
    """
    video = VideoFile(one.path)
    base = start_files(folder, one.stem)
    overlay, count = named(base, "_overlay.mp4"), 0
    with named(base, ".jsonl").open("w") as file, VideoWriter(overlay, video.rate) as writer:
        for frame in track(video, video.count, one.path.name) if shows_bar else video:
            prediction = predictor(frame)
            writer.write(prediction.frame())
            place = {"frame": count, "seconds": round(count / video.rate, 3)}
            file.write(json.dumps(about(predictor, one) | place | prediction.summary()) + "\n")
            count += 1
    if not count:
        raise UserError(f"{one.path}: no frame of it can be decoded")
    if video.count - count > max(1, video.count // 50):  # some containers' counts are estimates
        logger.warning("%s: %d frames could not be decoded", one.path, video.count - count)
    return f"{one.path}: {count} frames"


def about(predictor: Predictor, one: Input) -> dict:
    """What the JSON files say of where a prediction comes from."""
    return {"input": str(one.path), "model": predictor.config.get("experiment")}


def in_words(prediction: Prediction) -> str:
    """What was found, on one line."""
    found = [entry.text for entry in prediction.entries()]
    return textwrap.shorten(", ".join(found) or "nothing", 160, placeholder=" ...")


def finish(said: list[str], skipped: list[str], output: Path) -> None:
    """Says what was found and what was skipped.

    Raises:
        UserError: all was skipped.
        RunStopped: some was.
    """
    if not said:
        shown = "\n  ".join(skipped[:SHOWN])
        raise UserError(shown if len(skipped) == 1 else f"nothing could be read:\n  {shown}")
    for line in said[:SHOWN]:
        logger.info("%s", line)
    logger.info("results     %s (%d predicted)", output, len(said))
    for line in skipped:
        logger.warning("skipped     %s", line)
    if skipped:
        raise RunStopped(f"{len(skipped)} of {len(said) + len(skipped)} inputs were skipped; see "
                         "above", exit_code=1)  # fmt: skip
