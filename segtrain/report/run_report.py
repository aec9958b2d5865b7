"""report.html: one page about one run, which opens offline."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from segtrain.contracts import DENSE
from segtrain.headlines import HEADLINES
from segtrain.report.charts import Bar, bar_chart
from segtrain.report.confusion import confused_pairs, heat_map
from segtrain.report.curves import Curve, curve_charts
from segtrain.report.examples import Example, gallery
from segtrain.report.page import (
    Column,
    Tile,
    code,
    columns,
    facts,
    folded,
    links,
    notice,
    page,
    paragraph,
    section,
    table,
    tiles,
)
from segtrain.report.protocol import protocol_facts
from segtrain.report.quality import panoptic_classes, percent_cell
from segtrain.report.results import EXTRA, PANOPTIC, seconds_to, title_of
from segtrain.writing import write_text

SIBLINGS = ("results.json", "config.yaml", "run.log", "confusion.csv", "image_scores.csv",
            "checkpoints", "tensorboard", "csv")  # fmt: skip
BESIDE = 24  # classes, up to which charts leave room for a table beside them
IMAGE_SCORE_TITLES = {
    "miou": "mIoU",
    "panoptic_quality": "panoptic quality",
    "best_overlap": "mean best overlap",
}
GALLERY = {
    "semantic": "Best and worst by the mIoU over the classes in the image. The slider, with the "
    "mouse, a finger or the arrow keys, goes from one picture to the other. Errors are orange; "
    "stripes are void and do not count.",
    "multilabel": "Best and worst by the mIoU over the classes in the image. Classes are striped "
    "where they overlap. Errors are orange where any class is wrong; stripes there are void and do "
    "not count.",
    "instance": "Best and worst by the panoptic quality of the detections that score 0.5 and more, "
    "which are those drawn. The slider, with the mouse, a finger or the arrow keys, goes from one "
    "picture to the other. Striped masks are crowds and do not count.",
    "panoptic": "Best and worst by the panoptic quality of the image. The slider, with the mouse, "
    "a finger or the arrow keys, goes from one picture to the other. Errors are orange where the "
    "class is wrong or nothing was found, and blue where the class is right, but the segment does "
    "not match the true one; stripes are void or crowds and do not count.",
    "proposal": "Best and worst by the IoU of the proposal that fits an object best, averaged over "
    "the objects, of the first 100 proposals. Drawn are the ten best proposals, and those that fit "
    "best. The slider goes from one picture to the other.",
}


class RunReport(NamedTuple):
    """All that the page shows."""

    results: dict  # content of results.json
    config: str  # YAML
    curves: dict[str, Curve]  # by their tags; empty where nothing was logged
    confusion: tuple[np.ndarray, list[str]] | None  # counts (K, K) and names
    examples: dict[str, list[Example]] | str  # or why there are none
    folder: Path  # in which the page lies, for links to what is beside it


def write_report(path: Path, report: RunReport) -> Path:
    """Writes the page in one step and returns its path."""
    write_text(path, render(report))
    return path


def render(report: RunReport) -> str:
    """The page as HTML."""
    results = report.results
    body = [_summary(report), _curves(report.curves), _classes(report)]
    if report.confusion is not None:
        counts, names = report.confusion
        intro = (
            "Each row is a class of the truth, as shares of its pixels. Rows without any are grey."
        )
        content = heat_map(counts, names, "Confusion matrix"), confused_pairs(counts, names)
        content = columns(*content) if len(names) <= BESIDE else "".join(content)
        body.append(section("Confusion", content, intro, anchor="confusion"))
    body += [_gallery(report), _circumstances(report)]
    subtitle = " · ".join(
        [results["architecture"], results["backbone"], f"{results['dataset']} {results['split']}"]
    )
    footer = f"segtrain, run finished {moment(results['finished'])}"
    return page(results["experiment"], subtitle, "".join(body), footer)


def _summary(report: RunReport) -> str:
    results, metrics = report.results, report.results["metrics"]
    headline = HEADLINES[results["task"]]
    published = results["published"]
    note = f"on {results['dataset']} {results['split']}, {results['images']:,} images"
    figures = [Tile(title_of(headline), share(metrics[headline]), note)]
    if published is not None:
        figures.append(_published(published, metrics))
    others = (*PANOPTIC, "miou", "ap", "map", "precision", "recall", "pixel_accuracy",
              "mean_accuracy", "fwiou", *EXTRA, "ap50", "ap75", "box_ap", "ar100",
              "ar10")  # fmt: skip
    shown = [name for name in others if name in metrics and name != headline]
    figures += [Tile(title_of(name), share(metrics[name])) for name in shown]
    parts = [tiles(figures)]
    if published is not None:
        parts.append(paragraph(_comparison(published)))
    parts.append(columns(
        "<h3>How it was measured</h3>" + facts(protocol_facts(results)),
        "<h3>Training and machine</h3>" + facts(training_facts(results)),
    ))  # fmt: skip
    beside = {name: f"{name}/" if (report.folder / name).is_dir() else name
              for name in SIBLINGS if (report.folder / name).exists()}  # fmt: skip
    return section("Result", "".join(parts) + links(beside), anchor="result")


def _published(published: dict, metrics: dict) -> Tile:
    own = metrics.get(published["metric"])
    if own is None:
        return Tile("published", share(published["value"]))
    difference = 100 * (own - published["value"])
    return Tile(
        f"published {title_of(published['metric'])}", share(published["value"]),
        f"this run: {difference:+.1f} points".replace("-", "−")
        + ("" if published["comparable"] else "; not comparable"),
    )  # fmt: skip


def _comparison(published: dict) -> str:
    text = f"Published: {published['source']}. "
    if published["comparable"]:
        return text + "The two numbers are measured alike."
    return text + "That is measured or trained otherwise: the two numbers cannot be compared."


def _curves(curves: dict[str, Curve]) -> str:
    charts = curve_charts(curves)
    if not charts:
        charts = notice("Curves are missing: the run has no TensorBoard or CSV log.")
    intro = "The values of a step stand under the pointer, which the arrow keys move too."
    return section("Training", charts, intro if curves else "", anchor="training")


def _classes(report: RunReport) -> str:
    """Bars of the classes, and for instances the table of AP and AR."""
    metrics, pixels = report.results["metrics"], {}
    if report.confusion is not None:
        counts, names = report.confusion
        pixels = dict(zip(names, (counts.sum(1) / max(1, counts.sum())).tolist(), strict=True))
    per_class = {name: values for name, values in metrics.items() if isinstance(values, dict)}
    bars = "".join(
        _bars(name.removeprefix("per_class_"), values, pixels) for name, values in per_class.items()
    )
    if report.results["task"] == "panoptic":
        return section("Classes", panoptic_classes(report.results), anchor="classes")
    if report.results["task"] in DENSE:
        return section("Classes", bars, anchor="classes")
    parts = [part for part in (_ap_table(metrics), bars) if part]
    few = all(len(values) <= BESIDE for values in per_class.values())
    body = columns(*parts) if few else "".join(parts)
    return section("Precision and recall", body, anchor="classes")


def _bars(metric: str, values: dict[str, float | None], pixels: dict[str, float]) -> str:
    title = {"ap": "AP of masks", "box_ap": "AP of boxes", "average_precision": "average precision"}
    title = title.get(metric, title_of(metric))
    present = {name: value for name, value in values.items() if value is not None}
    bars = []
    for name, value in sorted(present.items(), key=lambda item: -item[1]):
        part = f", {100 * pixels[name]:.2g} % of the pixels" if name in pixels else ""
        bars.append(Bar(name, value, share(value), f"{name}: {title} {share(value)}{part}"))
    chart = bar_chart(bars, f"{title} by class") if bars else ""
    absent = [name for name, value in values.items() if value is None]
    if absent:
        chart += paragraph(f"Absent, left out of the mean: {', '.join(absent)}.", muted=True)
    return chart


def _ap_table(metrics: dict) -> str:
    boxes = any(name.startswith("box_") for name in metrics)
    heads = [Column(""), Column("masks %", numeric=True)]
    heads += [Column("boxes %", numeric=True)] if boxes else []
    rows = []
    for name, value in metrics.items():
        if isinstance(value, dict) or name.startswith("box_"):
            continue
        values = [value, metrics[f"box_{name}"]] if boxes else [value]
        rows.append([title_of(name), *(percent_cell(value) for value in values)])
    return table(heads, rows, "AP and AR", sortable=False)


def _gallery(report: RunReport) -> str:
    if isinstance(report.examples, str):
        return section("Images", notice(report.examples), anchor="images")
    names: Sequence[str] = report.confusion[1] if report.confusion is not None else ()
    content = gallery(report.examples, names)
    return section("Images", content, GALLERY[report.results["task"]], anchor="images")


def _circumstances(report: RunReport) -> str:
    results = report.results
    packages = facts({name: str(version) for name, version in results["versions"].items()})
    identity = facts({
        "finished": moment(results["finished"]),
        "code revision": results["git_revision"] or "unknown",
        "configuration": f"sha256 {results['config_sha256'][:16]}…",
        "checkpoint": f"{results['checkpoint']}, sha256 {results['checkpoint_sha256'][:16]}…",
    })  # fmt: skip
    body = columns("<h3>Identity</h3>" + identity, "<h3>Versions</h3>" + packages)
    body += folded("Configuration, resolved", code(report.config))
    return section("Circumstances", body, anchor="circumstances")


def training_facts(results: dict) -> dict[str, str]:
    """How a run was trained, how long that took, and what it needed."""
    timing, memory = results["timing"], results["peak_memory_bytes"]
    steps = "not trained here"
    if results["global_step"] is not None:  # else a published network
        steps = (f"{results['global_step']:,} of {results['total_batch_size']} images, "
                 f"{results['epochs']:.1f} epochs")  # fmt: skip
    found = {
        "steps": steps,
        "parameters": f"{results['parameters'] / 1e6:.2f} million",
        "devices": f"{results['devices']}, precision {results['precision']}",
        "seed": str(results["seed"]),
    }
    if timing["train_seconds"] is not None:
        found["training time"] = duration(timing["train_seconds"])
        found["training speed"] = f"{timing['train_images_per_second']:.1f} images/s"
        found["waiting for data"] = f"{100 * timing['data_wait_fraction']:.1f} % of that time"
    reached = {
        score: seconds
        for score in range(10, 100, 10)
        if (seconds := seconds_to(results, score / 100)) is not None
    }
    if reached:
        found["validation first at"] = ", ".join(
            f"{score} % after {duration(seconds)}" for score, seconds in list(reached.items())[-3:]
        )
    seconds = timing["evaluate_seconds"]
    found["evaluation"] = f"{duration(seconds)}, {results['images'] / seconds:.1f} images/s"
    peaks = [f"{size(memory[where])} {where}"
             for where in ("host", "device") if memory[where] is not None]  # fmt: skip
    if peaks:
        found["peak memory"] = ", ".join(peaks)
    return found


def share(value: float | None) -> str:
    """A fraction as a percentage, with two decimals as in tables."""
    return "–" if value is None else f"{100 * value:.2f} %"


def moment(time: str) -> str:
    """A time in ISO 8601 as people write it."""
    return time.replace("T", " ").replace("+00:00", " UTC")


def duration(seconds: float) -> str:
    """3.2 s, 4 min 05 s, 2 h 07 min, 1 d 03 h."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    names, step = ("min", "s"), 1
    if seconds >= 3600:
        names, step = ("h", "min"), 60
    if seconds >= 86400:
        names, step = ("d", "h"), 3600
    whole, rest = divmod(round(seconds / step), 24 if step == 3600 else 60)
    return f"{whole} {names[0]} {rest:02d} {names[1]}"


def size(count: int) -> str:
    """Bytes as GiB or MiB."""
    gibibytes = count / 2**30
    return f"{gibibytes:.1f} GiB" if gibibytes >= 1 else f"{count / 2**20:.0f} MiB"
