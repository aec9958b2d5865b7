"""A plan as sheets: what is wanted, the trainings, on several GPUs, data sets and weights."""

import math
from collections import defaultdict
from collections.abc import Sequence

from segtrain.plan.cost import Cost
from segtrain.plan.jobs import Target
from segtrain.plan.scaling import Scaled
from segtrain.table import wording
from segtrain.table.sheet import Cell, Column, Sheet


def target_sheet(
    wanted: Sequence[Target], costs: dict[str, Cost], speeds: dict[str, dict], share: int
) -> Sheet:
    """One row for each cell of the table or experiment, all its stages together.

    Args:
        wanted: the targets.
        costs: by experiment.
        speeds: by experiment, where known; see `measure_speed`.
        share: seeds that each is trained for.
    """
    columns = (Column("target", "for"), Column("stages", "trainings, in order", wraps=True),
               Column("steps", "steps", True), Column("images", "images", True),
               Column("time", "time", True))  # fmt: skip
    rows = []
    for target in wanted:
        stages = [costs[name] for name in target.stages]
        then = " > evaluated as the paper's" if target.evaluate else ""
        rows.append([
            Cell(target.title), Cell(" > ".join(target.stages) + then),
            Cell(*counted([c.steps for c in stages], any(c.at_most for c in stages))),
            Cell(*counted([c.images for c in stages], any(c.at_most for c in stages))),
            Cell(*timed(stages, speeds)),
        ])  # fmt: skip
    several = f" Each {share} times, once a seed." if share > 1 else ""
    note = "A training that several need is done once and counts once in the total." + several
    return Sheet("targets", "What is wanted", columns, rows, [note])


def training_sheet(costs: Sequence[Cost], speeds: dict[str, dict], device: str) -> Sheet:
    """One row for each training."""
    columns = (Column("experiment", "training"), Column("data", "data set"),
               Column("split", "split"), Column("state", "data"), Column("params", "params", True),
               Column("input", "images a step", True), Column("steps", "steps", True),
               Column("images", "images", True), Column("step_time", "s/step", True),
               Column("measured", "timed with", True), Column("time", "time", True),
               Column("disk", "disk", True))  # fmt: skip
    rows = []
    for c in costs:
        speed = speeds.get(c.experiment)
        rows.append([
            Cell(c.experiment), Cell(c.data.name), Cell(c.config["dataset"]["splits"]["train"]),
            Cell(c.data.state), Cell(wording.millions(c.parameters), c.parameters),
            Cell(c.input), Cell(*counted([c.steps], c.at_most)),
            Cell(*counted([c.images], c.at_most)),
            Cell("-" if speed is None else f"{speed['seconds']:.3g}"),
            Cell("-" if speed is None else speed["measured"]), Cell(*timed([c], speeds)),
            Cell(wording.gigabytes(c.checkpoint_bytes), c.checkpoint_bytes),
        ])  # fmt: skip
    notes = [f"Time on {device}: steps alone, from a few on random input, drawn out to the "
             "recipe's size where they are smaller; loading and validation come on top. Disk: "
             "checkpoints."]  # fmt: skip
    return Sheet("trainings", "Trainings", columns, rows, notes)


def scaling_sheet(costs: Sequence[Cost], found: dict[str, list[Scaled]], speed: str) -> Sheet:
    """One row for each training and number of devices.

    Args:
        costs: of the trainings.
        found: by experiment; experiments of which too little is known are left out.
        speed: what a device is taken to compute.
    """
    columns = (Column("experiment", "training"), Column("gpus", "GPUs", True),
               Column("used", "used", True), Column("batch", "images each", True),
               Column("step_time", "s/step", True), Column("time", "time", True),
               Column("gpu_hours", "GPU hours", True), Column("efficiency", "busy %", True),
               Column("memory", "memory", True), Column("gradients", "gradients MB/s", True),
               Column("data", "data MB/s", True),
               Column("operations", "GFLOPs an image", True))  # fmt: skip
    rows = []
    for c in costs:
        bound = "≤ " if c.at_most else ""
        for scaled in found.get(c.experiment, ()):
            seconds, data = scaled.seconds, c.image_bytes
            hours = None if seconds is None else scaled.devices * seconds / 3600
            data = None if data is None else data * scaled.images_per_second
            rows.append([
                Cell(c.experiment), Cell(str(scaled.given), scaled.given),
                Cell(str(scaled.devices), scaled.devices), Cell(str(scaled.images), scaled.images),
                Cell(f"{scaled.step:.3g}", scaled.step),
                Cell("-" if seconds is None else bound + wording.duration(seconds), seconds),
                Cell("-" if hours is None else bound + wording.large(hours), hours),
                Cell(wording.percent(scaled.efficiency, 0), scaled.efficiency),
                Cell(wording.gigabytes(scaled.memory), scaled.memory),
                Cell(wording.large(scaled.traffic / 1e6), scaled.traffic),
                Cell("-" if data is None else "≤ " + wording.large(data / 1e6), data),
                Cell(wording.large(scaled.training.work.operations / 1e9),
                     scaled.training.work.operations),
            ])  # fmt: skip
    notes = [
        f"With {speed}. The batch stays the recipe's, so only so many GPUs are used as it can be "
        "shared out over evenly. Memory: weights, gradients, the optimiser's state and what "
        "autograd keeps (bfloat16 with precision=auto), without workspaces. Gradients: sent by "
        "each GPU, and received. Data: read by all, before decoding. Loading and validation come "
        "on top."
    ]
    return Sheet("scaling", "On several GPUs", columns, rows, notes)


def data_sheet(costs: Sequence[Cost]) -> Sheet:
    """One row for each data set."""
    columns = (Column("dataset", "data set"), Column("state", "state"),
               Column("fetch", "to fetch", True), Column("trainings", "trainings", True),
               Column("remedy", "what to do", wraps=True))  # fmt: skip
    states = defaultdict(list)
    for c in costs:
        states[c.data.name].append(c.data)
    order = ("absent", "incomplete", "present", "verified", "embedded")
    rows = []
    for name, found in states.items():
        worst = min(found, key=lambda state: order.index(state.state))
        size = download_bytes([worst])
        rows.append([Cell(name), Cell(worst.state), Cell(wording.gigabytes(size) if size else "-"),
                     Cell(str(len(found))), Cell(worst.remedy)])  # fmt: skip
    return Sheet("data", "Data sets", columns, rows)


def weight_sheet(costs: Sequence[Cost]) -> Sheet:
    """One row for each file of initial weights."""
    columns = (Column("weights", "weights to start from"), Column("state", "state"),
               Column("trainings", "trainings", wraps=True))  # fmt: skip
    users = defaultdict(list)
    for c in costs:
        if c.weights is not None:
            users[c.weights].append(c.experiment)
    rows = [[Cell(w.name), Cell(w.state), Cell(", ".join(n))] for w, n in users.items()]
    return Sheet("weights", "Weights", columns, rows)


def download_bytes(states: Sequence[object]) -> float:
    """Of the archives that are still to be fetched, each once."""
    archives = {archive for state in states for archive in state.archives}
    return 1e9 * math.fsum(size or 0 for _, size in archives)


def counted(numbers: Sequence[int | None], at_most: bool) -> tuple[str, float | None]:
    """Sum as text and number; `-` where one is not known."""
    if None in numbers:
        return "-", None
    total = sum(numbers)
    text = f"{total:,}" if total < 1e6 else f"{total / 1e6:.2f} M"
    return ("≤ " if at_most else "") + text, total


def timed(costs: Sequence[Cost], speeds: dict[str, dict]) -> tuple[str, float | None]:
    """Time of some trainings as text and seconds; `-` where one is not known."""
    total = total_seconds(costs, speeds)
    if total is None:
        return "-", None
    at_most = any(c.at_most for c in costs)
    return ("≤ " if at_most else "") + wording.duration(total), total


def total_seconds(costs: Sequence[Cost], speeds: dict[str, dict]) -> float | None:
    """Of some trainings; None where one's is not known."""
    total = 0.0
    for c in costs:
        speed = speeds.get(c.experiment)
        seconds = None if speed is None else c.seconds(speed["seconds"])
        if seconds is None:
            return None
        total += seconds
    return total
