"""`report`: report.html of a run, at its end and anew for one that is done."""

import logging
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

import numpy as np
import torch
import yaml

from segtrain.errors import UserError
from segtrain.foreign import read_record
from segtrain.hardware import uses_gpu
from segtrain.inference.multilabel import masks_of
from segtrain.masks import as_arrays
from segtrain.metric.image_scores import FIRST_PROPOSALS
from segtrain.planes import unpack
from segtrain.predictor import find_dtype
from segtrain.report.curves import read_curves
from segtrain.report.examples import (
    Example,
    choose,
    label_layers,
    multilabel_keys,
    semantic_keys,
)
from segtrain.report.panels import (
    ERROR_KEYS,
    instance_panels,
    multilabel_panels,
    proposal_panels,
    semantic_panels,
)
from segtrain.report.record import ImageScores, read_confusion, read_image_scores
from segtrain.report.run_report import IMAGE_SCORE_TITLES, RunReport, write_report
from segtrain.report.segments import class_map, panoptic_keys, panoptic_panels
from segtrain.table.runs import read_results

if TYPE_CHECKING:
    from segtrain.dataset.datamodule import SegmentationData
    from segtrain.task.segmentation import Segmentation

logger = logging.getLogger("segtrain")


def run(config: dict, run_dir: Path) -> None:
    """Makes the report of `run` anew; what its pictures need may be missing by now.

    Raises:
        UserError: the folder holds no results.
    """
    folder = Path(config["run"])
    results = read_results(folder / "results.json")
    own = read_record(folder / "config.yaml", {"trainer": dict}, config["trust_code"])
    shown, examples = own, "This report was made without pictures."
    if config["examples"]:
        try:
            shown, data, task = reopened(own, config, folder)
            examples = find_examples(config, shown, data, task, results, folder)
        except UserError as error:
            examples = f"There are no pictures: {error}"
            logger.warning("report      without pictures: %s", error)
    page = collect(shown, results, examples, folder)
    logger.info("report      %s", write_report(folder / "report.html", page))


def report(
    settings: dict | None,
    config: dict,
    data: "SegmentationData",
    task: "Segmentation",
    results: dict,
    run_dir: Path,
) -> None:
    """Writes report.html after an evaluation; whatever goes wrong is a warning, not an error.

    Args:
        settings: `examples` (of each kind) and `max_side`; None for no report.
        config: as it was evaluated.
        data: whose split `test` was evaluated.
        task: with its weights.
        results: content of `results.json`.
        run_dir: has the record of the evaluation, and gets the report.
    """
    if settings is None:
        return
    try:
        examples = find_examples(settings, config, data, task, results, run_dir)
        path = write_report(run_dir / "report.html", collect(config, results, examples, run_dir))
        logger.info("report      %s", path)
    except Exception as error:  # hours of training must not end as a failure here
        logger.warning("report.html was not made (%s: %s); try segtrain report %s",
                       type(error).__name__, error, quote(f"run={run_dir}"))  # fmt: skip


def reopened(
    own: dict, command: dict, folder: Path
) -> tuple[dict, "SegmentationData", "Segmentation"]:
    """Configuration, data and network of a run that is done.

    Args:
        own: content of its config.yaml, that of a training run or of an evaluation.
        command: configuration of this command.
        folder: of the run.

    Raises:
        UserError: the checkpoint or the data is not there.
    """
    from segtrain.cli.evaluate import find_source, rebuild_task

    if "architecture" in own:
        own = {"run": str(folder), "checkpoint": None, "output_stride": None, "split": None,
               "ensemble": []}  # fmt: skip
    settings = own | {key: command[key] for key in ("trainer", "trust_code")}
    return rebuild_task(settings, find_source(settings))


def collect(
    config: dict, results: dict, examples: dict[str, list[Example]] | str, run_dir: Path
) -> RunReport:
    """All that the page shows, from the run folder and that of the training."""
    folders = [run_dir, *Path(results["checkpoint"]).parents[1:2]]
    curves = next((found for folder in folders if (found := read_curves(folder))), {})
    shown = {key: value for key, value in config.items() if key != "report"}
    return RunReport(
        results=results,
        config=yaml.safe_dump(shown, sort_keys=False, allow_unicode=True),
        curves=curves,
        confusion=read_confusion(run_dir),
        examples=examples,
        folder=run_dir,
    )


def find_examples(
    settings: dict,
    config: dict,
    data: "SegmentationData",
    task: "Segmentation",
    results: dict,
    run_dir: Path,
) -> dict[str, list[Example]] | str:
    """Images of the evaluated split, looked at once more; or why there are none."""
    if not settings["examples"]:
        return "This report was made without pictures."
    recorded = read_image_scores(run_dir)
    if recorded is None:
        return ("There are no pictures: this run has no image_scores.csv. Evaluate it again "
                "with segtrain evaluate run=<run folder>.")  # fmt: skip
    if len(recorded.scores) != len(data.test_source):
        return "There are no pictures: the data set has other images than when it was evaluated."
    chosen = choose(recorded.scores, settings["examples"], results["seed"])
    device = torch.device("cuda" if uses_gpu(config["trainer"]) else "cpu")
    task = task.to(device).eval()
    dtype = find_dtype(results["precision"], device)
    with torch.inference_mode(), torch.autocast(device.type, dtype, enabled=dtype is not None):
        return {
            kind: [example(task, data, recorded, index, settings["max_side"]) for index in indices]
            for kind, indices in chosen.items()
        }


def example(
    task: "Segmentation", data: "SegmentationData", recorded: ImageScores, index: int, max_side: int
) -> Example:
    """One image of the split, with what the network finds in it."""
    image, truth = data.test_source.read(index)
    tensor = torch.from_numpy(image).permute(2, 0, 1).to(task.device)
    (found,) = task.inference(task.model, [tensor])
    score = f"{IMAGE_SCORE_TITLES[recorded.metric]} {100 * recorded.scores[index]:.1f} %"
    name, labels = data.test_source.name(index), task.labels
    if task.evaluation.task == "semantic":
        prediction = found.argmax(0).cpu().numpy()
        panels = semantic_panels(image, truth, prediction, labels, max_side)
        valid = truth != labels.ignore_index
        right = np.count_nonzero(valid & (truth == prediction)) / np.count_nonzero(valid)
        return Example(name, f"{score}, {100 * right:.1f} % of pixels right", panels,
                       semantic_keys(truth, prediction, labels),
                       label_layers(truth, prediction, panels["image"].shape[:2]))  # fmt: skip
    if task.evaluation.task == "multilabel":
        masks, valid = (part.numpy() for part in unpack(torch.from_numpy(truth),
                                                        labels.num_classes))  # fmt: skip
        prediction = masks_of(found, task.inference.thresholds).cpu().numpy()
        panels = multilabel_panels(image, masks, valid, prediction, labels, max_side)
        keys = multilabel_keys(masks, prediction, valid, labels)
        return Example(name, score, panels, keys, None)
    found = as_arrays(found)
    if task.evaluation.task == "panoptic":
        panels = panoptic_panels(image, truth, found, labels, max_side)
        layers = label_layers(truth[..., 0], class_map(found), panels["image"].shape[:2])
        count = len(found["labels"])
        return Example(name, f"{score}, {count} segment{'s' * (count != 1)} found", panels,
                       panoptic_keys(truth, found, labels), layers)  # fmt: skip
    objects = f"{score}, {np.count_nonzero(~truth['crowd'])} objects"
    if task.evaluation.task == "proposal":
        panels = proposal_panels(image, truth, found, labels, max_side, FIRST_PROPOSALS)
        return Example(name, objects, panels, [], None)
    panels = instance_panels(image, truth, found, labels, max_side)
    return Example(name, objects, panels, ERROR_KEYS, None)
