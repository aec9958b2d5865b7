"""`evaluate`: a run's checkpoint, or a published one, on any split, data set or protocol."""

import logging
import time
from pathlib import Path
from typing import NamedTuple

import pytorch_lightning as pl
from torch import Tensor

from segtrain.architecture.weights import load_weights, read_state_dict
from segtrain.assembly import build_data, build_inference, build_model, build_task, make
from segtrain.callback.bars import Bars
from segtrain.cli.compatible import require_labels
from segtrain.cli.report import report
from segtrain.configuration.schema import Recipe, checked_stored
from segtrain.dataset.datamodule import SegmentationData
from segtrain.errors import UserError
from segtrain.inference.ensemble import Ensemble, EnsembleInference
from segtrain.label_set import LabelSet
from segtrain.published.comparison import (
    in_order_of_data,
    own_split,
    print_comparison,
    published_entries,
)
from segtrain.published.network import Published, read_published
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
from segtrain.trainer import common_trainer_arguments, leave_signals
from segtrain.zoo.catalogue import is_published

logger = logging.getLogger("segtrain")

TRAINING_ALONE = {"callback", "logger"}  # of a configuration, which is not built here
SCORES = ("metrics", "published")  # of results.json; the rest tells how they were made


class Source(NamedTuple):
    """What is evaluated.

    Attributes:
        config: of the training; for a published network a composed one.
        state: its weights.
        file: that holds them.
        progress: how far it had trained, as results have it; None where it is not known.
        published: for networks from elsewhere, what they are.
    """

    config: dict
    state: dict[str, Tensor]
    file: Path
    progress: dict
    published: Published | None


def run(config: dict, run_dir: Path) -> None:
    """Evaluates and writes `results.json` into `run_dir`, and an archive for a test server.

    Raises:
        UserError: no such run, checkpoint or published network, one that does not fit, or no such
            server.
    """
    source = find_source(config)
    merged, data, task = rebuild_task(config, source)
    if config["submit"]:
        others = [member(other, config["trust_code"]) for other in config["ensemble"]]
        runs = [one.config for one in (source, *others)]
        prepare_submission(task, data, runs, config["submit_competition"], run_dir)
    else:
        data.check_test()
    results = evaluate_task(merged, data, task, source.file, run_dir) | source.progress
    if source.published is not None:
        sha256 = results["checkpoint_sha256"]
        results |= published_entries(source.published, config, merged, data, sha256)
    if task.global_rank == 0:
        finish(task, results, source.file, run_dir)
        if results["metrics"]:
            report(config.get("report"), merged, data, task, results, run_dir)


def find_source(config: dict) -> Source:
    """What `run=`, `checkpoint=` or `weights=` names.

    Raises:
        UserError: there is no such thing.
    """
    weights = config.get("weights")  # evaluations of before have none
    if weights is None:
        return of_checkpoint(find_checkpoint(config), config["trust_code"])
    dataset = config["dataset"]["name"] if "dataset" in config else None
    published = read_published(
        weights, config["weights_file"], config["protocol"], dataset, config["trust_code"]
    )
    if published.dataset is None:
        raise UserError(f"weights={weights} has classes of its own, and nothing says where there "
                        "are labels for them; give dataset=<name>")  # fmt: skip
    return of_published(published)


def of_checkpoint(file: Path, trust_code: bool) -> Source:
    """A checkpoint of this package.

    Raises:
        UserError: it is none, names other code, or its configuration has values that cannot be.
    """
    config, progress = stored_config(file, trust_code)
    config = checked_stored(config, Recipe.__annotations__.keys() - TRAINING_ALONE, str(file))
    return Source(config, read_state_dict(file), file, progress, None)


def of_published(published: Published) -> Source:
    """A network from elsewhere; results say of it that it was not trained here."""
    trained = published.trained
    config = trained.config | {"weights": trained.origin}
    progress = {"global_step": None, "epochs": None}
    return Source(config, trained.state, published.file, progress, published)


def member(other: str, trust_code: bool) -> Source:
    """A member of an ensemble, given its run folder or file, or a published one.

    Raises:
        UserError: there is no such thing.
    """
    if is_published(other):
        return of_published(read_published(other))
    key = "run" if Path(other).is_dir() else "checkpoint"
    return of_checkpoint(find_checkpoint({"run": None, "checkpoint": None, key: other}), trust_code)


def rebuild_task(
    config: dict, source: Source
) -> tuple[dict, SegmentationData, Segmentation]:
    """What is to be evaluated: configuration, data, the network with its weights.

    Raises:
        UserError: as `run`.
    """
    merged = dict(source.config)
    for key in ("dataset", "inference"):
        if key in config:  # chosen on the command line
            merged[key] = config[key]
    inference, own = merged["inference"], source.config["inference"]
    if "thresholds" in inference and inference["thresholds"] is None:
        inference["thresholds"] = own.get("thresholds")
    images, white = merged["dataset"]["source"], white_level(source.config)
    if images.get("white_level") == "auto" and white is not None:
        images["white_level"] = white  # as the network has learned to see
    if config.get("extra_metrics") is not None:  # evaluations of before have none
        merged["extra_metrics"] = config["extra_metrics"]
    merged["trainer"] |= config["trainer"]
    merged["weights"] = None
    merged["architecture"] = without_pretraining(merged["architecture"])
    if config["output_stride"] is not None:
        merged["architecture"]["backbone"]["output_stride"] = config["output_stride"]
    data = build_data(merged)
    if config["split"] is not None:
        data.splits["test"] = config["split"]
    elif source.published is not None and source.published.row is not None:
        data.splits["test"] = own_split(source.published, data)
    require_labels(data, merged)
    task = build_task(merged, data.labels)
    state = source.state
    if source.published is not None:
        state = in_order_of_data(source.published, data.labels, task.inference.task)
    load_weights(task.model, state, str(source.file))
    join_ensemble(task, config["ensemble"], config["trust_code"])
    return merged, data, task


def join_ensemble(task: Segmentation, others: list[str], trust_code: bool) -> None:
    """Puts the networks of other runs beside the task's own, each tested as its run says.

    Raises:
        UserError: the task or a run is not semantic, or a run has other classes.
    """
    if not others:
        return
    require_semantic("the network to evaluate", task.inference.task)
    models, inferences = [task.model], [task.inference]
    for other in others:
        source = member(other, trust_code)
        config = source.config | {
            "weights": None, "architecture": without_pretraining(source.config["architecture"])
        }  # fmt: skip
        labels = make(config["dataset"]["labels"])
        inference = build_inference(config["inference"], labels)
        require_semantic(other, inference.task)
        if labels.names != task.labels.names:
            raise UserError(f"ensemble: {other} has other classes: {', '.join(labels.names)}")
        model = build_model(config, labels.num_classes)
        load_weights(model, source.state, str(source.file))
        models.append(model)
        inferences.append(inference)
    crf, inferences[0].crf = inferences[0].crf, None
    task.model, task.inference = Ensemble(models), EnsembleInference(inferences, crf)
    task.evaluation.probabilities = task.inference.gives_probabilities


def require_semantic(name: str, task: str) -> None:
    """Refuses a network for another task in an ensemble.

    Raises:
        UserError: names it and its task.
    """
    if task != "semantic":
        raise UserError(f"ensemble: {name} is for '{task}', and only probabilities of semantic "
                        "networks are averaged; use ensemble=[]")  # fmt: skip


def finish(task: Segmentation, results: dict, checkpoint: Path, run_dir: Path) -> None:
    """Writes and prints the scores, where there are labels, and packs what a test server gets.

    Raises:
        UserError: a prediction is missing or not what the server wants.
    """
    logger.info("checkpoint  %s", checkpoint)
    if results["metrics"]:
        write_results(run_dir / "results.json", results)
        print_scores(results["metrics"], f"{results['dataset']} {results['split']}")
        print_comparison(results)
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
    if task.inference.task == "multilabel":  # those of the step that the weights are of
        task.inference.thresholds = stored_config(checkpoint)[0]["inference"]["thresholds"]
    return evaluate_task(config, data, task, checkpoint, run_dir)


def record(data: SegmentationData, task: Segmentation, run_dir: Path) -> None:
    """Writes what the report needs beside the results."""
    names = [data.test_source.name(index) for index in range(len(data.test_source))]
    scores = ImageScores(task.evaluation.image_score, names, task.image_scores)
    write_image_scores(run_dir, scores)
    if task.confusion is not None:
        write_confusion(run_dir, task.confusion, task.labels.names)


def told_apart(labels: LabelSet) -> dict:
    """The classes of a panoptic set whose instances are told apart, for its results."""
    if labels.things is None:
        return {}
    return {"things": [labels.names[label] for label in sorted(labels.things)]}


def evaluate_task(
    config: dict, data: SegmentationData, task: Segmentation, checkpoint: Path, run_dir: Path
) -> dict:
    """As `evaluate_checkpoint`, of a network that has its weights already."""
    settings = config["trainer"]
    trainer = pl.Trainer(
        **common_trainer_arguments(settings, run_dir),
        benchmark=False,  # images have many sizes
        logger=False,
        callbacks=[Bars()] if settings["progress_bar"] else [],
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
        **told_apart(task.labels),
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
            "validations": None,
            "evaluate_seconds": seconds,
        },
        "parameters": sum(parameter.numel() for parameter in task.model.parameters()),
        "checkpoint": str(checkpoint),
        "checkpoint_sha256": file_sha256(checkpoint),
        "config_sha256": config_sha256(config),
        **environment(),
    }
