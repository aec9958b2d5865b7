"""Which server takes predictions on a data set."""

import re
from pathlib import Path

from segtrain.dataset.datamodule import SegmentationData
from segtrain.errors import UserError
from segtrain.submit.cityscapes import CityscapesFormat, CityscapesInstanceFormat
from segtrain.submit.coco import CocoFormat
from segtrain.submit.panoptic import cityscapes_panoptic, coco_panoptic
from segtrain.submit.submission import ServerFormat, Submission
from segtrain.submit.voc import COMPETITIONS, VocFormat, competition_of
from segtrain.task.segmentation import Segmentation

BY_NAME = {
    "cityscapes": CityscapesFormat,
    "cityscapes_instances": CityscapesInstanceFormat,
    "coco2014": CocoFormat,
    "coco2017": CocoFormat,
    "coco_panoptic": coco_panoptic,
    "cityscapes_panoptic": cityscapes_panoptic,
}


def prepare_submission(
    task: Segmentation,
    data: SegmentationData,
    trained: list[dict],
    competition: str | None,
    run_dir: Path,
) -> None:
    """Makes the next test write its predictions, also of a split without public labels.

    Args:
        task: what is tested; `task.evaluation.finish` then packs them.
        data: the set; its `test` split is tested.
        trained, competition: as in `choose_server`.
        run_dir: gets the archive.

    Raises:
        UserError: no server takes them, or the split is not there.
    """
    server = choose_server(data, task.evaluation.task, trained, competition)
    data.test_source = data.source(data.splits["test"])
    task.evaluation = Submission(task.evaluation, data.test_source, server, run_dir)


def choose_server(
    data: SegmentationData, task: str, trained: list[dict], competition: str | None
) -> ServerFormat:
    """The format for the `test` split of a data set.

    Args:
        data: the set.
        task: of the network: semantic, instance, proposal or panoptic.
        trained: configurations of the runs whose networks are tested, the first names the system.
        competition: of VOC, comp5 or comp6; None goes by what the runs were trained on.

    Raises:
        UserError: no server takes such predictions, or there is no such competition.
    """
    split = data.splits["test"]
    name = re.sub(r"[^\w-]+", "-", trained[0]["experiment"])
    if task == "proposal":
        raise UserError("submit: no server takes segment proposals; COCO's wants detections")
    if data.name != "voc" and data.name not in BY_NAME:
        raise UserError(
            f"submit: {data.name} has no test server; there is one for dataset="
            f"{', '.join(['voc', *BY_NAME])}"
        )
    if competition not in (None, *COMPETITIONS) or (competition and data.name != "voc"):
        raise UserError(
            f"submit_competition={competition}: expected null, or for voc one of "
            f"{', '.join(COMPETITIONS)}"
        )
    if data.name == "voc":
        return VocFormat(competition or competition_of(trained), split, name)
    return BY_NAME[data.name](data.labels, split, name)
