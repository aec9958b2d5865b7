"""`train`: trains, evaluates the best checkpoint, writes `results.json`."""

import contextlib
import logging
import textwrap
from pathlib import Path
from shlex import quote

import pytorch_lightning as pl

from segtrain.architecture.weights import load_weights, read_state_dict
from segtrain.assembly import build_data, build_task, resolve_class_weights, resolve_white_level
from segtrain.callback.images import per_class_rows
from segtrain.callback.progress import Progress
from segtrain.cli.compatible import require_labels
from segtrain.cli.evaluate import evaluate_checkpoint
from segtrain.cli.report import report
from segtrain.configuration.keys import holder_of
from segtrain.configuration.schema import Recipe
from segtrain.dataset.datamodule import SegmentationData
from segtrain.loggers import open_loggers, write_scores, write_table
from segtrain.named_runs import short_name
from segtrain.report.results import Results, config_sha256, print_scores, write_results
from segtrain.sweep.ledger import swept_values
from segtrain.task.segmentation import Segmentation
from segtrain.trained import require_resumable
from segtrain.trainer import build_trainer

logger = logging.getLogger("segtrain")


def run(config: Recipe, run_dir: Path) -> None:
    """One training run in `run_dir`.

    Raises:
        UserError: the configuration or the data cannot be used; nothing was trained.
        RunStopped: a signal or a loss that is not finite ended the training.
    """
    checkpoints = run_dir / "checkpoints"
    resumed = checkpoints / "last.ckpt" if config["resume"] else None
    if resumed is not None:
        require_resumable(resumed)
    pl.seed_everything(config["seed"], verbose=False)
    resolve_white_level(config)
    data = build_data(config)
    require_labels(data, config)
    data.check()
    resolve_class_weights(config, data)
    task = build_task(config, data.labels)
    if resumed is not None:  # says what does not fit; Lightning loads it again
        load_weights(task.model, read_state_dict(resumed), str(resumed))
    trainer, progress = build_trainer(config, data, run_dir, task.evaluation.headline)
    announce(config, data, task, trainer)
    with contextlib.ExitStack() as stack:
        if trainer.is_global_zero:
            parameters = hyperparameters(config)
            stack.enter_context(open_loggers(trainer.loggers, parameters, config, run_dir))
        trainer.fit(task, data, ckpt_path=resumed, weights_only=True)
        best = checkpoints / "best.ckpt"
        checkpoint = best if best.is_file() else checkpoints / "last.ckpt"
        results = evaluate_checkpoint(config, data, task, checkpoint, run_dir)
        if trainer.is_global_zero:
            results |= training_results(config, data, trainer, progress, results["timing"])
            finish(config, task, trainer, results, run_dir, checkpoint)
    if trainer.is_global_zero:
        report(config.get("report"), config, data, task, results, run_dir)  # older runs lack it
        say_next(run_dir)


def announce(
    config: Recipe, data: SegmentationData, task: Segmentation, trainer: pl.Trainer
) -> None:
    """What is about to happen, in a few lines."""
    splits = data.splits
    told = [f"{len(data.train_source)} training images ({splits['train']})",
            f"{len(data.val_source)} validation images ({splits['val']})"]  # fmt: skip
    if splits["test"] != splits["val"]:
        told.append(f"{len(data.test_source)} test images ({splits['test']})")
    logger.info("data        %s: %s", data.name, ", ".join(told))
    logger.info("labels      %s", textwrap.shorten(data.labels.describe(), 400))
    logger.info("network     %s, %.2f M parameters", type(task.model).__name__,
                sum(p.numel() for p in task.model.parameters()) / 1e6)  # fmt: skip
    origin = config.get("starts_from")  # not in the configuration of older runs
    if origin is not None and config["weights"] is None:
        logger.info("weights     this recipe starts from %s: give weights=<its %s.ckpt>, or train "
                    "both with segtrain chain experiment=%s",
                    origin, config.get("starts_from_checkpoint", "best"),
                    config["experiment"])  # fmt: skip
    logger.info("training    %d steps x %d images (%.1f epochs) on %d x %s, precision %s",
                trainer.max_steps, config["batch_size"],
                trainer.max_steps * config["batch_size"] / len(data.train_source),
                trainer.world_size, trainer.accelerator.name(), trainer.precision)  # fmt: skip
    for key, reason in ({} if config["resume"] else config.get("chosen", {})).items():
        node, name = holder_of(config, key)
        value = textwrap.shorten(str(node[name]), 60)
        logger.info("chosen      %s=%s  (%s)", key, value, reason)
    logger.info("run folder  %s", trainer.default_root_dir)
    if config["resume"]:
        logger.info("goes on     from %s", Path(config["resume"], "checkpoints", "last.ckpt"))


def training_results(
    config: Recipe, data: SegmentationData, trainer: pl.Trainer, progress: Progress, timing: dict
) -> dict:
    """The entries of `results.json` that only training knows."""
    return {
        "global_step": trainer.global_step,
        "epochs": trainer.global_step * config["batch_size"] / len(data.train_source),
        "timing": {
            **timing,
            "train_seconds": progress.train_seconds,
            "train_images_per_second": progress.images_per_second,
            "data_wait_fraction": progress.wait_fraction,
            "validations": progress.validations,
        },
    }


def finish(
    config: Recipe,
    task: Segmentation,
    trainer: pl.Trainer,
    results: Results,
    run_dir: Path,
    checkpoint: Path,
) -> None:
    """Writes the results, logs them beside the hyper-parameters, and says where all is."""
    write_results(run_dir / "results.json", results)
    headline = {
        f"test/{name}": value
        for name, value in results["metrics"].items()
        if isinstance(value, float)
    }
    score = trainer.checkpoint_callback.best_score
    if score is not None:
        headline = {f"val/best_{task.evaluation.headline}": score, **headline}
    write_scores(trainer.loggers, headline, swept_values(run_dir) or summary(results, config),
                 trainer.global_step, run_dir, checkpoint)  # fmt: skip
    rows = per_class_rows(results["metrics"])
    if rows:
        write_table(trainer.loggers, "test/per_class", rows, trainer.global_step)
    print_scores(results["metrics"], f"{results['dataset']} {results['split']}")
    seconds = results["timing"]["train_seconds"]
    logger.info("trained     %.0f s at %.1f images/s", seconds,
                results["timing"]["train_images_per_second"])  # fmt: skip
    logger.info("checkpoint  %s", checkpoint)
    logger.info("results     %s", run_dir / "results.json")


def say_next(run_dir: Path) -> None:
    """What can be done with the run, as commands."""
    run = quote(f"run={short_name(run_dir)}")
    if (run_dir / "tensorboard").is_dir():
        logger.info("curves      segtrain tensorboard %s", run)
    logger.info("next        segtrain predict %s source=<pictures>", run)


def summary(results: Results, config: Recipe) -> dict[str, float | str]:
    """What tells runs apart in TensorBoard's HPARAMS tab, which shows few columns at once."""
    keys = ("experiment", "architecture", "backbone", "dataset", "total_batch_size", "global_step",
            "seed")  # fmt: skip
    return {**{key: results[key] for key in keys}, "optimizer.lr": config["optimizer"]["lr"],
            "config_sha256": config_sha256(config)}  # fmt: skip


def hyperparameters(config: Recipe) -> dict:
    """The configuration as flat `group.key` entries, and its hash."""
    flat = {"config_sha256": config_sha256(config)}

    def walk(node: dict, prefix: str) -> None:
        for key, value in node.items():
            if isinstance(value, dict):
                walk(value, f"{prefix}{key}.")
            else:
                flat[prefix + key] = value if isinstance(value, int | float | str) else str(value)

    walk(config, "")
    return flat
