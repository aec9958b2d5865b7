"""`prepare`: downloads, converts and verifies a data set, draws a contact sheet of it, or converts
what annotation tools export."""

import logging
import os
from copy import deepcopy
from pathlib import Path

from segtrain.assembly import build_data, resolve_white_level
from segtrain.configuration.folder import options
from segtrain.dataset.coco_annotations import CocoAnnotations
from segtrain.dataset.datamodule import SegmentationData
from segtrain.dataset.preflight import evenly_spaced
from segtrain.dataset.shard_index import describe_shards
from segtrain.dataset.stream import TrainStream
from segtrain.errors import UserError
from segtrain.hardware import cores
from segtrain.prepare.archives import obtain_all
from segtrain.prepare.exports.recognise import read_export
from segtrain.prepare.exports.write import describe, write_export
from segtrain.prepare.once import splits_to_verify, verify_once
from segtrain.prepare.preview import Sample, write_preview
from segtrain.prepare.shards import check_hashes, write_shards
from segtrain.terminal import track
from segtrain.trained import white_level

logger = logging.getLogger("segtrain")

COUNTED_IMAGES = 500  # for the contact sheet's histogram; verification counts all


def run(config: dict, run_dir: Path) -> None:
    """Prepares the data set, or previews it.

    Raises:
        UserError: something has to be fetched by hand, cannot be fetched, or is faulty.
    """
    if config["from"] is not None or config["to"] is not None:
        convert_export(config)
        return
    if config["preview"]:
        preview(build_data(config), config["preview_samples"], run_dir)
        return
    if config["dataset"]["num_workers"] == "auto":
        config["dataset"]["num_workers"] = cores()  # nothing else is computed
    if config["dataset"]["shards"] is not None:
        verify_shards(config, run_dir)
        return
    trained_on = deepcopy(config)
    source = config["dataset"]["source"]
    if "filter_empty" in source:
        source["filter_empty"] = []  # what training leaves out is verified all the same
    data = build_data(config)
    preparation = data.preparation
    if preparation is not None and not config["verify"]:
        obtain_all(preparation, config["keep_archives"])
        if preparation.convert is not None and preparation.convert(Path(preparation.root)):
            logger.info("converted   the annotations of %s", data.name)
    if config["panoptic"] is not None and (preparation is None or preparation.panoptic is None):
        raise UserError("panoptic=<folder> writes dataset=cityscapes_panoptic alone, "
                        "in COCO's panoptic format; leave the key out")  # fmt: skip
    counts, optional = splits_to_verify(data, config["complete"])
    verify_once(data, counts, optional, config["verify"], run_dir)
    if config["shards"] is not None:
        shard(trained_on)
    if config["panoptic"] is not None:
        for split in dict.fromkeys("+".join(data.splits.values()).split("+")):
            preparation.panoptic(data.labelled_source(split), split, Path(config["panoptic"]))
        logger.info("written     %s", config["panoptic"])
    say_next(data.name)


def say_next(dataset: str) -> None:
    """Names a training on the data set, where there is an experiment for it."""
    recipes = [name for name in options("experiment") if name.endswith(f"_{dataset}")]
    if recipes:
        first = f"deeplabv3_{dataset}"
        logger.info("next        segtrain experiment=%s", first if first in recipes else recipes[0])


def convert_export(config: dict) -> None:
    """Writes the export of an annotation tool as a COCO JSON folder, and reads that back.

    Raises:
        UserError: one of the two folders is not named, or see `read_export` and `write_export`.
    """
    target = Path(str(config["to"]))
    images = None if config["images"] is None else Path(str(config["images"]))
    export = read_export(Path(str(config["from"])), images, target.absolute().parent)
    logger.info("recognised  %s: %d images, classes %s", export.kind, len(export.pictures),
                ", ".join(export.classes))  # fmt: skip
    write_export(export, target, config["val_share"], config["seed"])
    logger.info("%s", describe(export))
    for file in sorted(target.glob("*.json")):
        CocoAnnotations(file, target / "images")
    logger.info("next        segtrain dataset=coco_json dataset.source.root=%s; for detectors "
                "dataset=coco_json_instances", target)  # fmt: skip


def shard(config: dict) -> None:
    """Writes the data set as shards.

    Raises:
        UserError: see `write_shards`.
    """
    resolve_white_level(config)
    count, data, white = config["shards"], build_data(config), white_level(config)
    root = Path(os.environ.get("SEGTRAIN_DATA", "data"))
    folder = Path(config["output"] or root / "shards" / data.name)
    wanted = config["shard_splits"] or "+".join(data.splits.values()).split("+")
    wanted = list(dict.fromkeys(wanted))
    write_shards(data, wanted, count, config["shard_megabytes"], folder, white)
    logger.info("shards      %s; train on them with dataset.shards=%s, there or from any store "
                "that they are copied to", folder, folder)  # fmt: skip


def verify_shards(config: dict, run_dir: Path) -> None:
    """Verifies the shards that `dataset.shards` names, against their hashes and sample by sample.

    Raises:
        UserError: a shard is lost or corrupt, or new ones are to be written.
    """
    if config["shards"] is not None:
        raise UserError("shards=... writes the files of a data set as shards; leave out "
                        "dataset.shards, which names shards to verify")  # fmt: skip
    data = build_data(config)
    splits = config["shard_splits"] or describe_shards(data.shards)["splits"]
    for split in splits:
        check_hashes(data.source(split))
    verify_once(data, dict.fromkeys(splits), [], True, run_dir)


def preview(data: SegmentationData, num_samples: int, run_dir: Path) -> None:
    """Draws the first samples of the training stream."""
    split = data.splits["train"]
    source = data.source(split)
    stream = TrainStream(source, data.transform, data.seed, data.mix)
    samples = [
        Sample(name, image, label)
        for image, label, name in (stream[position] for position in range(num_samples))
    ]
    counted = evenly_spaced(len(source), COUNTED_IMAGES)
    counts = sum(source.class_counts(index) for index in track(counted, len(counted), "counting"))
    title = f"{data.name} {split}: training samples; classes of {len(counted)} of its images"
    for path in write_preview(samples, data.labels, counts, title, run_dir):
        logger.info("preview     %s", path)
