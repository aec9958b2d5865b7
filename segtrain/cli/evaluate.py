"""`evaluate`: a run's checkpoint on any split, data set or inference protocol."""

import logging
import time
from pathlib import Path

import pytorch_lightning as pl

from segtrain.architecture.weights import load_weights, read_state_dict
from segtrain.assembly import build_data, build_model, build_task, make, require_labels
from segtrain.cli.report import report
from segtrain.cli.schema import Recipe, checked_stored
from segtrain.dataset.datamodule import SegmentationData
from segtrain.errors import UserError
from segtrain.inference.ensemble import Ensemble, EnsembleInference
from segtrain.report.record import ImageScores, write_confusion, write_image_scores
from segtrain.report.results import (
    config_sha256,
    environment,
    file_sha256,
    print_scores,
    write_results,
)
from segtrain.submit.servers import prepare_submission
from segtrain.submit.submission import Submission
from segtrain.task.segmentation import Segmentation
from segtrain.trained import find_checkpoint, stored_config, white_level, without_pretraining
from segtrain.trainer import common_trainer_arguments, leave_signals, shows_bar

logger = logging.getLogger("segtrain")

TRAINING_ALONE = {"callback", "logger"}  # of a configuration, which is not built here
SCORES = ("metrics", "published")  # of results.json; the rest tells how they were made


def run(config: dict, run_dir: Path) -> None:
    """Evaluates and writes `results.json` into `run_dir`, and an archive for a test server.

    Raises:
        UserError: no such run or checkpoint, one that does not fit, or no such server.
    """
    merged, data, task, checkpoint = rebuild_task(config)
    if config["submit"]:
        files = [checkpoint, *map(member_checkpoint, config["ensemble"])]
        runs = [stored_config(file, config["trust_code"])[0] for file in files]
        prepare_submission(task, data, runs, config["submit_competition"], run_dir)
    else:
        data.check_test()
    _, trained = stored_config(checkpoint, config["trust_code"])
    results = evaluate_task(merged, data, task, checkpoint, run_dir) | trained
    if task.global_rank == 0:
        finish(task, results, checkpoint, run_dir)
        if results["metrics"]:
            report(config.get("report"), merged, data, task, results, run_dir)


def rebuild_task(config: dict) -> tuple[dict, SegmentationData, Segmentation, Path]:
    """What is to be evaluated: configuration, data, the network with its weights, checkpoint.

    Raises:
        UserError: as `run`.
    """
    checkpoint = find_checkpoint(config)
    stored = stored_recipe(checkpoint, config["trust_code"])
    merged = dict(stored)
    for key in ("dataset", "inference"):
        if key in config:  # chosen on the command line
            merged[key] = config[key]
    source, white = merged["dataset"]["source"], white_level(stored)
    if source.get("white_level") == "auto" and white is not None:
        source["white_level"] = white  # as the network has learned to see
    merged["trainer"] |= config["trainer"]
    merged["weights"] = None
    merged["architecture"] = without_pretraining(merged["architecture"])
    if config["output_stride"] is not None:
        merged["architecture"]["backbone"]["output_stride"] = config["output_stride"]
    data = build_data(merged)
    if config["split"] is not None:
        data.splits["test"] = config["split"]
    require_labels(data, merged)
    task = build_task(merged, data.labels)
    load_weights(task.model, read_state_dict(checkpoint), str(checkpoint))
    join_ensemble(task, config["ensemble"], config["trust_code"])
    return merged, data, task, checkpoint


def stored_recipe(checkpoint: Path, trust_code: bool) -> dict:
    """The configuration of the run that wrote a checkpoint, of which an evaluation can be made.

    Raises:
        UserError: it is no checkpoint of this package, names other code, or has values that cannot
            be.
    """
    config, _ = stored_config(checkpoint, trust_code)
    return checked_stored(config, Recipe.__annotations__.keys() - TRAINING_ALONE, str(checkpoint))


def join_ensemble(task: Segmentation, others: list[str], trust_code: bool) -> None:
    """Puts the networks of other runs beside the task's own, each tested as its run says.

    Raises:
        UserError: a run has other classes, or is not semantic.
    """
    if not others:
        return
    models, inferences = [task.model], [task.inference]
    for other in others:
        file = member_checkpoint(other)
        config = stored_recipe(file, trust_code)
        config |= {"weights": None, "architecture": without_pretraining(config["architecture"])}
        inference = make(config["inference"])
        names = make(config["dataset"]["labels"]).names
        if inference.task != "semantic" or names != task.labels.names:
            raise UserError(f"ensemble: {other} has other classes: {', '.join(names)}")
        model = build_model(config, len(names))
        load_weights(model, read_state_dict(file), str(file))
        models.append(model)
        inferences.append(inference)
    crf, inferences[0].crf = inferences[0].crf, None
    task.model, task.inference = Ensemble(models), EnsembleInference(inferences, crf)


def member_checkpoint(other: str) -> Path:
    """The checkpoint of an ensemble's member, given its run folder or file."""
    key = "run" if Path(other).is_dir() else "checkpoint"
    return find_checkpoint({"run": None, "checkpoint": None, key: other})


def finish(task: Segmentation, results: dict, checkpoint: Path, run_dir: Path) -> None:
    """Writes and prints the scores, where there are labels, and packs what a test server gets.

    Raises:
        UserError: a prediction is missing or not what the server wants.
    """
    logger.info("checkpoint  %s", checkpoint)
    if results["metrics"]:
        write_results(run_dir / "results.json", results)
        print_scores(results["metrics"], f"{results['dataset']} {results['split']}")
        logger.info("results     %s", run_dir / "results.json")
    if isinstance(task.evaluation, Submission):
        archive = task.evaluation.finish()
        made = {name: value for name, value in results.items() if name not in SCORES}
        made |= {"archive": archive.name, "archive_sha256": file_sha256(archive)}
        write_results(run_dir / "submission.json", made)
        logger.info("submission  %s", archive)


def evaluate_checkpoint(
    config: dict,
    data: SegmentationData,
    task: Segmentation,
    checkpoint: Path,
    run_dir: Path,
) -> dict:
    """Evaluates one checkpoint on the `test` split; scores stay in `task.metrics`.

    Returns:
        The content of `results.json`, without what only the training knows.
    """
    load_weights(task.model, read_state_dict(checkpoint), str(checkpoint))
    return evaluate_task(config, data, task, checkpoint, run_dir)


def record(data: SegmentationData, task: Segmentation, run_dir: Path) -> None:
    """Writes what the report needs beside the results."""
    names = [data.test_source.name(index) for index in range(len(data.test_source))]
    scores = ImageScores(task.evaluation.image_score, names, task.image_scores)
    write_image_scores(run_dir, scores)
    if task.confusion is not None:
        write_confusion(run_dir, task.confusion, task.labels.names)


def evaluate_task(
    config: dict, data: SegmentationData, task: Segmentation, checkpoint: Path, run_dir: Path
) -> dict:
    """As `evaluate_checkpoint`, of a network that has its weights already."""
    settings = config["trainer"]
    trainer = pl.Trainer(
        **common_trainer_arguments(settings, run_dir),
        benchmark=False,  # images have many sizes
        logger=False,
        enable_progress_bar=shows_bar(settings),
        enable_checkpointing=False,
    )
    leave_signals(trainer)
    started = time.perf_counter()
    trainer.test(task, data, verbose=False)
    seconds = time.perf_counter() - started
    if task.global_rank == 0 and task.metrics:
        record(data, task, run_dir)
    return {
        "experiment": config["experiment"],
        "task": task.evaluation.task,
        "architecture": type(task.model).__name__,
        "backbone": task.model.backbone.name,
        "dataset": data.name,
        "split": data.splits["test"],
        "protocol": {
            **task.inference.protocol,
            "output_stride": task.model.backbone.output_stride,
        },
        "metrics": task.metrics,
        "published": config["published"],
        "images": len(data.test_source),
        "seed": config["seed"],
        "total_batch_size": config["batch_size"],
        "devices": trainer.world_size,
        "precision": trainer.precision,
        "timing": {
            "train_seconds": None,
            "train_images_per_second": None,
            "data_wait_fraction": None,
            "evaluate_seconds": seconds,
        },
        "parameters": sum(parameter.numel() for parameter in task.model.parameters()),
        "checkpoint": str(checkpoint),
        "checkpoint_sha256": file_sha256(checkpoint),
        "config_sha256": config_sha256(config),
        **environment(),
    }
