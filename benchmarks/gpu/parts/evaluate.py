"""What share of an evaluation is not the network, for mIoU and for AP."""

import json
import time
from collections.abc import Callable
from functools import partial

from benchmarks.gpu.cell import Cell, Figures, Setting
from benchmarks.gpu.commands import TINY_INSTANCES, config_of, data_or_skip, quickstart, untrained
from segtrain.benchmark.timing import synchronise
from segtrain.cli.evaluate import evaluate_task, find_source, rebuild_task
from segtrain.task.segmentation import Segmentation

UNTRAINED = ("architecture.backbone.weights=none", "trainer.max_steps=1", "report=null")


def cells(setting: Setting) -> list[Cell]:
    """The embedded sets, which are always there, then real ones."""
    embedded = [
        Cell("mIoU, quickstart on shapes", 15, semantic, "split"),
        Cell("AP, Mask R-CNN on shapes", 20, instances, "split"),
    ]
    if setting.tiny:
        return embedded
    real = {
        "mIoU, DeepLabv3-R50 on voc": ("architecture=deeplabv3_torchvision", "dataset=voc"),
        "mIoU, DeepLabv3+ on cityscapes": ("architecture=deeplabv3plus", "dataset=cityscapes"),
        "AP, Mask R-CNN on coco2017": ("architecture=mask_rcnn", "dataset=coco2017"),
    }
    return embedded + [Cell(name, 40, partial(on_files, o), "split") for name, o in real.items()]


def semantic(setting: Setting) -> Figures:
    """The trained quickstart on its test images."""
    return shares(setting, [f"run={quickstart(setting)}"])


def instances(setting: Setting) -> Figures:
    """An untrained detector, which finds as many objects as it may."""
    chosen = ["experiment=mask_rcnn_shapes", "callback=[ema]", *UNTRAINED[2:]]
    chosen += TINY_INSTANCES if setting.tiny else ()
    checkpoint = untrained(setting, "mask_rcnn of shapes", chosen)
    return shares(setting, [f"checkpoint={checkpoint}"])


def on_files(overrides: tuple[str, ...], setting: Setting) -> Figures:
    """An untrained network of full size on a set's validation images."""
    data_or_skip(setting, [*overrides, *UNTRAINED[2:]])
    name = "-".join(o.partition("=")[2] for o in overrides)
    checkpoint = untrained(setting, name, [*overrides, *UNTRAINED])
    return shares(setting, [f"checkpoint='{checkpoint}'"])


def shares(setting: Setting, overrides: list[str]) -> Figures:
    """Seconds of a split's evaluation, of its parts, and the share that is not the network.

    It is evaluated twice, and the second time counts: kernels are chosen and files are cached then.
    The device is waited for at both ends of a part, so all together takes a little longer.
    """
    config = config_of(setting, "evaluate", [*overrides, "report=null"])
    source = find_source(config)
    merged, data, task = rebuild_task(config, source)
    seconds: dict[str, float] = {}
    watch(task, seconds)
    out = setting.scratch / "evaluated"
    out.mkdir(exist_ok=True)
    for _ in range(2):
        seconds |= dict.fromkeys(("network", "inference", "metric"), 0.0)
        results = evaluate_task(merged, data, task, source.file, out)
    whole = results["timing"]["evaluate_seconds"]
    # A detector's parts are called one by one, and all of its inference counts as the network.
    network = seconds["network"] or seconds["inference"]
    json.dumps(results["metrics"])  # is plain
    return {
        "images": results["images"],
        "images/s": results["images"] / whole,
        "in all s": whole,
        "network s": network,
        "inference s": seconds["inference"],
        "metric s": seconds["metric"],
        "not the network %": 100 * (1 - network / whole),
    }


def watch(task: Segmentation, seconds: dict[str, float]) -> None:
    """Adds up the seconds of network, inference and metric from here on."""

    def timed(part: str, call: Callable) -> Callable:
        def run(*arguments: object) -> object:
            synchronise()
            started = time.perf_counter()
            found = call(*arguments)
            synchronise()
            seconds[part] += time.perf_counter() - started
            return found

        return run

    task.inference = Timed(task.inference, timed)
    task.model.forward = timed("network", task.model.forward)
    task.evaluation.update = timed("metric", task.evaluation.update)
    task.evaluation.compute = timed("metric", task.evaluation.compute)


class Timed:
    """An inference whose calls are timed.

    Args:
        inference: that is called.
        timed: (part, call) -> the call, timed.
    """

    def __init__(self, inference: Callable, timed: Callable[[str, Callable], Callable]) -> None:
        self.protocol = inference.protocol
        self.call = timed("inference", inference)

    def __call__(self, *arguments: object) -> object:
        return self.call(*arguments)
