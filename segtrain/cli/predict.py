"""`predict`: what a trained network says of pictures and videos, as pictures and JSON."""

import json
import logging
import os
import textwrap
from collections.abc import Callable
from pathlib import Path

import torch

from segtrain.cli import launch
from segtrain.cli.ahead import look_ahead
from segtrain.cli.counting import Counting
from segtrain.cli.inputs import Input, find_inputs
from segtrain.cli.manifest import SHOWN, Manifest, Outcome
from segtrain.cli.required import predict_source
from segtrain.cli.stopping import Stop
from segtrain.contracts import DENSE
from segtrain.errors import RunStopped, UserError
from segtrain.loading import find_trained, make_predictor
from segtrain.prediction import Prediction
from segtrain.prediction.files import class_id, named, start_files
from segtrain.predictor import Predictor, Settings
from segtrain.published.network import read_published
from segtrain.report.video import VideoFile, VideoWriter
from segtrain.terminal import track
from segtrain.trained import Trained, fingerprint
from segtrain.writing import complete

logger = logging.getLogger("segtrain")


def run(config: dict, run_dir: Path) -> None:
    """Writes the results of every input into the folder `output`, or else into `run_dir`.

    Each of several processes predicts its share of the inputs. What is finished is left as it is.

    Raises:
        UserError: there is nothing to predict on or to predict with, or no input can be read; or
            `output` holds results of other settings.
        RunStopped: some inputs could not be read; exit code 1. The others' results are there. Or a
            signal ended the command.
    """
    output = run_dir if config["output"] is None else Path(config["output"])
    manifest = Manifest(output, *launch.place())
    group = launch.waiting_group()
    with Stop(advice(config, output)) as stop:
        try:
            if manifest.rank == 0:
                predictor, left, finished = begin(config, manifest)
            launch.wait(group, stop.check)
            if manifest.rank > 0:
                manifest.lock()
                (predictor, _), left = find_predictor(config), 0
            with Counting(manifest.parts if left else [], left) as counting:

                def check() -> None:
                    counting.look(again=stop.requested)
                    stop.check(f" after {counting.count} of {left} inputs")

                predict_share(predictor, config, manifest, check)
                launch.wait(group, check)
            outcome = (manifest.finish(), finished) if manifest.rank == 0 else None
            end(*launch.shared(outcome), output)
        finally:
            manifest.unlock()


def advice(config: dict, output: Path) -> str:
    """How a user goes on after a signal."""
    with_output = f" with output={output}" if config["output"] is None else ""
    without = ", without overwrite=true," if config["overwrite"] else ""
    return f"the same command{with_output}{without} goes on with the others"


def begin(config: dict, manifest: Manifest) -> tuple[Predictor, int, int]:
    """Rank zero's part: the network, and how many inputs are left and how many are finished.

    Raises:
        UserError: as of `run`.
    """
    if config["output"] is None and launch.restartable_job():
        raise UserError("restarts need output=<folder>, in which a restarted process finds what "
                        "is finished")  # fmt: skip
    inputs = find_inputs(config["input"], manifest.output)
    try:
        manifest.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"output={manifest.output}: no such folder can be made "
                        f"({error.strerror})") from None  # fmt: skip
    predictor, settings = find_predictor(config)
    manifest.lock()
    # Without output= nothing is to be gone on with: a folder of that name is the same second's.
    overwrite = (config["overwrite"] or config["output"] is None) and not launch.was_restarted()
    left, finished = manifest.start(inputs, settings, overwrite)
    manifest.share_lock()
    if finished:
        logger.info("goes on     %d of %d inputs are finished in %s",
                    finished, left + finished, manifest.output)  # fmt: skip
    return predictor, left, finished


def find_network(config: dict) -> Trained:
    """The network that the configuration names.

    Raises:
        UserError: it names none or several, or the named one cannot be used.
    """
    given = predict_source(config)
    if config["weights"] is not None:
        trust_code = config["trust_code"]
        return read_published(config["weights"], config["weights_file"], None, None,
                              trust_code).trained  # fmt: skip
    return find_trained(given, config["weights_file"], config["trust_code"])


def find_predictor(config: dict) -> tuple[Predictor, dict]:
    """The network that the configuration names, and all that its results depend on.

    Raises:
        UserError: as of `find_network`; or the network knows not all of `classes`.
    """
    trained = find_network(config)
    settings = Settings(
        device=own_device(config),
        precision=str(config["precision"]),
        min_score=config["min_score"],
        max_pixels=config["max_pixels"],
        short_side=config["short_side"],
    )
    predictor = make_predictor(trained, config.get("inference"), settings)
    classes = [str(name) for name in config["classes"]]
    require_classes(predictor, classes)
    result = {
        "network": trained.origin,
        "sha256": fingerprint(trained),
        "inference": config.get("inference") or trained.config["inference"],
        "classes": classes,
        "max_pixels": settings.max_pixels,
        "precision": str(predictor.dtype or torch.float32).removeprefix("torch."),
    }
    if predictor.task in DENSE:
        result["short_side"] = settings.short_side
    elif predictor.task != "panoptic":
        result["min_score"] = settings.min_score
    return predictor, result


def own_device(config: dict) -> str:
    """The device of this process.

    Raises:
        UserError: all processes would share one GPU.
    """
    device = str(config["device"])
    _, processes = launch.place()
    if device != "auto":
        if processes > 1 and device != "cpu":
            raise UserError(f"device={device} for {processes} processes; leave out device, and "
                            "each takes a GPU of its own")  # fmt: skip
        return device
    if config["trainer"]["accelerator"] == "cpu":
        return "cpu"
    if processes > 1 and torch.cuda.is_available():
        return f"cuda:{os.environ['LOCAL_RANK']}"
    return "auto"


def require_classes(predictor: Predictor, classes: list[str]) -> None:
    """Refuses classes that the network does not know.

    Raises:
        UserError: names the nearest.
    """
    if classes and predictor.task == "proposal":
        raise UserError("classes=...: proposals have no class")
    for name in classes:
        class_id(predictor.labels, name)


def predict_share(
    predictor: Predictor, config: dict, manifest: Manifest, check: Callable[[], None]
) -> None:
    """Predicts this process's share, and says of each input what came of it.

    Args:
        predictor: the network.
        config: resolved configuration.
        manifest: of the results folder.
        check: is called again and again, and may end the command.
    """
    share = manifest.share_size()
    classes = [str(name) for name in config["classes"]]
    ahead = look_ahead(
        manifest.share(), share, config["batch_size"], config["num_workers"], config["max_pixels"],
        predictor.white, config["timeout"],
    )  # fmt: skip
    with manifest.part.open("w") as part:
        for batch in ahead:
            pictures = [seen.picture for seen in batch if seen.picture is not None]
            predictions = iter(predictor.batch(pictures) if pictures else [])
            for seen in batch:
                one, file = seen.one, seen.file
                try:
                    if seen.error is not None:
                        raise UserError(seen.error)
                    if one.is_video:
                        shows_bar = share == 1 and manifest.rank == 0
                        told = predict_video(predictor, one, manifest.output, shows_bar, check)
                    else:
                        large = seen.picture is None
                        prediction = predictor(one.path) if large else next(predictions)
                        told = save(prediction, predictor, one, manifest.output, classes)
                except UserError as error:
                    told = {"status": "failed", "message": str(error), "outputs": []}
                entry = {"name": one.stem, "input": os.path.abspath(one.path), **told, **file}
                part.write(json.dumps(entry) + "\n")
                part.flush()
            check()


def save(
    prediction: Prediction, predictor: Predictor, one: Input, folder: Path, classes: list[str]
) -> dict:
    """Writes the results of a picture, and says which and what it shows."""
    files = prediction.save(folder, one.stem, classes, about=about(predictor, one))
    height, width = prediction.image.shape[:2]
    return done(f"{one.path}: {in_words(prediction)}", files, folder, (width, height))


def predict_video(
    predictor: Predictor, one: Input, folder: Path, shows_bar: bool, check: Callable[[], None]
) -> dict:
    """Writes overlays of all frames as a video, and a line of JSON for each frame.

    Raises:
        UserError: the video cannot be read or written.
    """
    video = VideoFile(one.path)
    base = start_files(folder, one.stem)
    files, count = [named(base, "_overlay.mp4"), named(base, ".jsonl")], 0
    with complete(files[0]) as overlay, complete(files[1]) as lines:
        with lines.open("w") as file, VideoWriter(overlay, video.rate) as writer:
            for frame in track(video, video.count, one.path.name, "frames") if shows_bar else video:
                prediction = predictor(frame)
                writer.write(prediction.frame())
                place = {"frame": count, "seconds": round(count / video.rate, 3)}
                said = about(predictor, one) | place | prediction.summary()
                file.write(json.dumps(said) + "\n")
                count += 1
                check()
        if not count:
            raise UserError(f"{one.path}: no frame of it can be decoded")
    if video.count - count > max(1, video.count // 50):  # some containers' counts are estimates
        logger.warning("%s: %d frames could not be decoded", one.path, video.count - count)
    return done(f"{one.path}: {count} frames", files, folder, frame.shape[1::-1])


def done(message: str, files: list[Path], folder: Path, size: tuple[int, int]) -> dict:
    """What the manifest says of an input that was predicted."""
    outputs = [str(file.relative_to(folder)) for file in files]
    width, height = size
    return {"status": "ok", "message": message, "outputs": outputs, "width": width,
            "height": height}  # fmt: skip


def about(predictor: Predictor, one: Input) -> dict:
    """What the JSON files say of where a prediction comes from."""
    return {"input": str(one.path), "model": predictor.config.get("experiment")}


def in_words(prediction: Prediction) -> str:
    """What was found, on one line."""
    found = [entry.text for entry in prediction.entries()]
    return textwrap.shorten(", ".join(found) or "nothing", 160, placeholder=" ...")


def end(outcome: Outcome, finished: int, output: Path) -> None:
    """Says what was found and what was skipped; `finished` inputs were there before.

    All processes end alike: one that fails alone lets those of other machines wait.

    Raises:
        UserError: all was skipped.
        RunStopped: some was.
    """
    if outcome.failed and not outcome.predicted and not finished:
        shown = "\n  ".join(outcome.skipped)
        raise UserError(shown if outcome.failed == 1 else f"nothing could be read:\n  {shown}")
    if launch.rank() == 0:
        for line in outcome.said:
            logger.info("%s", line)
        before = f", {finished} were there" if finished else ""
        logger.info("results     %s (%d predicted%s)", output, outcome.predicted, before)
        logger.info("overlays    %s", output / "*_overlay.*")
        for line in outcome.skipped:
            logger.warning("skipped     %s", line)
    if outcome.failed:
        total = outcome.predicted + outcome.failed + finished
        where = "see above"
        if outcome.failed > len(outcome.skipped):
            where = f"the first {SHOWN} are above, all in {output / 'manifest.jsonl'}"
        message = f"{outcome.failed} of {total} inputs were skipped; {where}"
        if launch.restartable_job() is None:
            raise RunStopped(message, exit_code=1)
        if launch.rank() == 0:  # an exit code would have all start again, in vain
            logger.warning("%s", message)
