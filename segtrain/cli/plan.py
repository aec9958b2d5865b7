"""`plan`: what the table, or any choice of experiments, costs before anyone starts."""

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

from segtrain.cli import chain
from segtrain.cli.collect import check_names
from segtrain.cli.table import as_paths
from segtrain.configuration.folder import conf_dir, options
from segtrain.configuration.schema import Plan
from segtrain.errors import UserError
from segtrain.plan.cost import Cost, cost
from segtrain.plan.jobs import Target, targets
from segtrain.plan.scaling import Links, Scaled, Training
from segtrain.plan.sheets import (
    counted,
    data_sheet,
    download_bytes,
    scaling_sheet,
    target_sheet,
    timed,
    total_seconds,
    training_sheet,
    weight_sheet,
)
from segtrain.plan.speed import (
    device_name,
    images_a_step,
    measure_speed,
    speed_key,
    stored_speed,
)
from segtrain.plan.work import work
from segtrain.published.checks import planned, planned_sheet
from segtrain.table import wording
from segtrain.table.published import read_published
from segtrain.table.sheet import Sheet
from segtrain.table.writing import as_records, comma_separated, markdown_page, print_sheet
from segtrain.writing import write_json, write_text
from segtrain.zoo.catalogue import select
from segtrain.zoo.entry import Entry

logger = logging.getLogger("segtrain")

ENDINGS = (".md", ".csv", ".json")


def run(config: Plan, run_dir: Path) -> None:
    """Prints the plan and writes it into the files asked for.

    Raises:
        UserError: there is no such experiment, or an override does not fit one.
    """
    outputs = as_paths(config["output"])
    for path in outputs:
        if path.suffix not in ENDINGS:
            raise UserError(f"output={path}: expected a name that ends in {', '.join(ENDINGS)}")
    gpus = config["gpus"] or []
    gpus = list(dict.fromkeys([gpus] if isinstance(gpus, int) else gpus))
    experiments, patterns = chosen(config)
    wanted, rows = find_targets(experiments), find_rows(patterns)
    costs = find_costs(wanted, config["overrides"])
    speeds = find_speeds(list(costs.values()), config["measure_speed"], config["measure_seconds"])
    trainer = next(iter(costs.values())).config["trainer"] if costs else {"accelerator": "auto"}
    device = device_name(trainer)
    share = len(config["seeds"] or [None])
    every = list(costs.values())
    trainings = training_sheet(every, speeds, device)
    scaled = find_scaled(every, speeds, config, gpus) if gpus else {}
    reached = (
        f"{config['tflops']} TFLOP/s in training"
        if config["tflops"]
        else f"the step times of {device}"
    )
    speed = f"{reached}, {config['bandwidth']} GB/s and {config['latency']} µs between GPUs"
    sheets = [target_sheet(wanted, costs, speeds, share), trainings,
              scaling_sheet(every, scaled, speed), data_sheet(every),
              weight_sheet(every), planned_sheet(rows)]  # fmt: skip
    sheets = [sheet for sheet in sheets if sheet.rows]
    for sheet in sheets:
        print_sheet(sheet)
    total = {}
    if every:
        total = totals(every, speeds, share) | scaled_totals(every, scaled, gpus, share)
    if rows:
        total["evaluations"] = planned(rows)
    for name, text in total.items():
        print(f"{name:<12}{text}")
    write(outputs, sheets, trainings, total)


def chosen(config: Plan) -> tuple[list[str], list[str]]:
    """Names and patterns of experiments and of published networks; the table for neither."""
    experiments, rows = (
        [given] if isinstance(given, str) else given
        for given in (config["experiments"], config["evaluations"])
    )
    if experiments is None:
        experiments = [] if rows else ["table"]
    return experiments, rows


def find_rows(patterns: list[str]) -> list[Entry]:
    """The published networks that `evaluations=` names.

    Raises:
        UserError: it names none.
    """
    return select(patterns) if patterns else []


def find_targets(experiments: list[str]) -> list[Target]:
    """What `experiments=` names, with the stages of each.

    Raises:
        UserError: it names no experiment.
    """
    return targets(
        experiments,
        options("experiment"),
        *read_published(conf_dir() / "published.yaml"),
        lambda name: chain.stages(name, conf_dir()),
    )


def find_costs(wanted: Sequence[Target], overrides: list[str]) -> dict[str, Cost]:
    """The cost of every training, each once, by experiment, in the order in which they run.

    Raises:
        UserError: an override is for none of them, or does not fit.
    """
    names = list(dict.fromkeys(stage for target in wanted for stage in target.stages))
    check_names(overrides, names)
    states: dict = {}
    return {
        name: cost(
            name, [*chain.general(overrides, first=True), *chain.own(overrides, name)], states
        )
        for name in names
    }


def find_speeds(costs: Sequence[Cost], measure: bool | None, seconds: float) -> dict[str, dict]:
    """Measured steps by experiment; experiments with the same network and input share one."""
    known: dict[str, dict] = {}
    measured: set[str] = set()
    for c in costs:
        stored, key = stored_speed(c.config), speed_key(c.config)
        is_due = stored is None or (measure is True and key not in measured)
        if is_due and measure is not False:
            measured.add(key)
            logger.info("timing      %s, %s", c.experiment, c.input)
            try:
                stored = measure_speed(c.config, c.experiment, seconds)
            except RuntimeError as error:
                logger.warning("timing      %s: %s", c.experiment, str(error).partition("\n")[0])
        if stored is not None:
            known[c.experiment] = stored
    return known


def find_scaled(
    costs: Sequence[Cost], speeds: dict[str, dict], config: Plan, gpus: Sequence[int]
) -> dict[str, list[Scaled]]:
    """Every training on each number of GPUs, by experiment, where its speed is known."""
    links = Links(1e9 * config["bandwidth"], 1e-6 * config["latency"])
    found = {}
    for c in costs:
        speed = speeds.get(c.experiment)
        if config["tflops"] is None and speed is None:
            continue
        try:
            of_image = work(c.config)
        except RuntimeError as error:
            logger.warning("counting    %s: %s", c.experiment, str(error).partition("\n")[0])
            continue
        if config["tflops"] is None:
            seconds = speed["seconds"] / images_a_step(c.config)
        else:
            seconds = of_image.operations / (1e12 * config["tflops"])
        training = Training(c.config["batch_size"], c.config["trainer"]["accumulate_grad_batches"],
                            c.steps, c.parameters, c.optimizer_states, of_image,
                            seconds)  # fmt: skip
        found[c.experiment] = [Scaled(training, links, number) for number in gpus]
    return found


def scaled_totals(
    costs: Sequence[Cost], scaled: dict[str, list[Scaled]], gpus: Sequence[int], share: int
) -> dict[str, str]:
    """A last line for each number of GPUs: the trainings one after the other."""
    lines = {}
    for position, number in enumerate(gpus):
        known = [scaled[c.experiment][position] for c in costs if c.experiment in scaled]
        known = [one for one in known if one.seconds is not None]
        seconds = share * sum(one.seconds for one in known)
        hours = share * sum(one.devices * one.seconds for one in known) / 3600
        left = len(costs) - len(known)
        lines[f"{number} GPU{'s' if number > 1 else ''}"] = (
            ("≤ " if any(c.at_most for c in costs) else "")
            + f"{wording.duration(seconds)}, {wording.large(hours)} GPU hours in use"
            + (f"; not known for {left}, give tflops or measure_speed" if left else "")
        )
    return lines


def totals(costs: Sequence[Cost], speeds: dict[str, dict], share: int) -> dict[str, str]:
    """The last lines: everything together."""
    at_most = any(c.at_most for c in costs)
    steps, images = (
        counted([None if n is None else n * share for n in numbers], at_most)[0]
        for numbers in ([c.steps for c in costs], [c.images for c in costs])
    )
    seconds = total_seconds(costs, speeds)
    if seconds is None:
        timed_ones = [c for c in costs if total_seconds([c], speeds) is not None]
        left = len(costs) - len(timed_ones)
        part = (
            f"{timed(timed_ones, speeds)[0]} for {len(timed_ones)} trainings; "
            if timed_ones
            else ""
        )
        how = f"{part}not known for {left}, see measure_speed"
    else:
        how = ("≤ " if at_most else "") + wording.duration(seconds * share)
    disk = share * sum(c.checkpoint_bytes for c in costs)
    fetch = download_bytes([c.data for c in costs])
    free = shutil.disk_usage(Path.cwd()).free
    return {
        "total": f"{share * len(costs)} trainings, {steps} steps, {images} images",
        "time": how,
        "disk": f"{wording.gigabytes(disk)} of checkpoints, {wording.gigabytes(fetch)} of archives "
        f"to fetch (twice that while they are extracted); {wording.gigabytes(free)} are free here",
    }


def write(outputs: Sequence[Path], sheets: Sequence[Sheet], main: Sheet, total: dict) -> None:
    """The same into files."""
    for path in outputs:
        if path.suffix == ".md":
            lines = "".join(f"- {name}: {text}\n" for name, text in total.items())
            write_text(path, f"{markdown_page(sheets)}\n{lines}")
        elif path.suffix == ".csv":
            write_text(path, comma_separated(main, None))
        else:
            content = {sheet.name: as_records(sheet) for sheet in sheets} | {"totals": total}
            write_json(path, content)
        logger.info("written     %s", path)
