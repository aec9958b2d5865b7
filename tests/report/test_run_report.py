"""report.html in a browser: of 171 classes and twelve large images, of instances, of little."""

import json
import math
import time
from pathlib import Path

import numpy as np
import pytest
from browser import WIDTHS, complaints, look, overflows, requests

from segtrain.label_set import LabelSet
from segtrain.report.curves import Curve
from segtrain.report.examples import Example, Key, label_layers, semantic_keys
from segtrain.report.panels import semantic_panels
from segtrain.report.run_report import RunReport, duration, training_facts, write_report

K = 171
NAMES = tuple(f"stuff-{number}" if number % 3 else f"a long thing {number}" for number in range(K))
PALETTE = tuple((k, 255 - k, (7 * k) % 256) for k in range(K))
LABELS = LabelSet(NAMES, PALETTE, {k: k for k in range(K)})
MEGABYTE = 2**20

RESULTS = {
    "experiment": "deeplabv3_cocostuff", "task": "semantic", "architecture": "DeepLabv3",
    "backbone": "resnet101", "dataset": "cocostuff", "split": "val2017",
    "protocol": {"inference": "whole", "scales": [0.5, 1.0], "flip": True, "crf": False,
                 "pad": True, "logit_adjustment": None, "output_stride": 8},
    "metrics": {"miou": 0.3951, "pixel_accuracy": 0.67, "mean_accuracy": 0.51, "fwiou": 0.52,
                "per_class_iou": {name: None if k in (3, 9) else (k % 100) / 100
                                  for k, name in enumerate(NAMES)}},
    "published": {"value": 0.41, "metric": "miou", "source": "a paper",
                  "comparable": True},
    "images": 5000, "seed": 1, "global_step": 30000, "epochs": 4.1, "total_batch_size": 16,
    "devices": 8, "precision": "bf16-mixed",
    "timing": {"train_seconds": 40000.0, "train_images_per_second": 12.0,
               "data_wait_fraction": 0.01, "evaluate_seconds": 300.0},
    "peak_memory_bytes": {"host": 9 * 2**30, "device": 60 * 2**30}, "parameters": 58_000_000,
    "checkpoint": "best.ckpt", "checkpoint_sha256": 64 * "a", "config_sha256": 64 * "b",
    "git_revision": None, "versions": {"torch": "2"}, "finished": "2026-01-02T03:04:05+00:00",
}  # fmt: skip


def street(seed: int) -> Example:
    """An image of Cityscapes' size, grainy as a photograph, with many classes."""
    rng = np.random.default_rng(seed)
    grain = rng.normal(128, 40, (1024, 2048, 3)).clip(0, 255).astype(np.uint8)
    truth = np.kron(rng.integers(0, K, (16, 32)), np.ones((64, 64), int)).astype(np.uint8)
    truth[:64] = 255
    prediction = np.where(rng.random((1024, 2048)) < 0.1, 5, np.roll(truth, 20, axis=1))
    prediction[prediction == 255] = 0
    panels = semantic_panels(grain, truth, prediction, LABELS, 512)
    layers = label_layers(truth, prediction, panels["image"].shape[:2])
    return Example(f"frankfurt_{seed}.png", "mIoU 12 %", panels,
                   semantic_keys(truth, prediction, LABELS), layers)  # fmt: skip


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    rng = np.random.default_rng(0)
    counts = (rng.pareto(0.8, (K, K)) * 1e5).astype(np.int64) + np.diag(rng.integers(1, 10**9, K))
    counts[3] = 0
    steps = np.arange(30_000)
    curves = {
        "train/loss": Curve(steps, np.exp(-steps / 9000) + rng.normal(0, 0.05, 30_000)),
        "lr/head": Curve(steps, 0.01 * (1 - steps / 30_000) ** 0.9),
        "lr/backbone": Curve(steps, 0.001 * (1 - steps / 30_000) ** 0.9),
        "val/miou": Curve(np.arange(0, 30_000, 1000), np.linspace(0.1, 0.4, 30)),
        "images_per_second": Curve(steps, np.full(30_000, math.nan)),
    }
    examples = {kind: [street(4 * n + k) for k in range(4)]
                for n, kind in enumerate(("best", "worst", "random"))}  # fmt: skip
    report = RunReport(
        RESULTS, "a: 1\nb: <script>\n", curves, (counts, list(NAMES)), examples, folder
    )
    (folder / "results.json").write_text(json.dumps(RESULTS))
    return write_report(folder / "report.html", report)


def test_size(large):
    assert large.stat().st_size < 5 * MEGABYTE
    assert [path.name for path in large.parent.iterdir()].count("report.html.partial") == 0


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_opens_quietly_and_fits(chromium, large, width, dark):
    look(chromium, large, width, dark)
    assert complaints(chromium) == []
    assert requests(chromium) == []
    assert not overflows(chromium)
    assert chromium.execute_script("return document.querySelectorAll('section').length") == 6
    links = "return [...document.querySelectorAll('.links a')].map(a => a.getAttribute('href'))"
    assert chromium.execute_script(links) == ["results.json"]


def test_slider_shows_more_of_one_side(chromium, large):
    from selenium.webdriver.common.keys import Keys

    look(chromium, large)
    over = chromium.find_element("css selector", ".example .stage img:nth-of-type(2)")
    slider = chromium.find_element("css selector", ".example .split")

    def cut() -> str:
        return chromium.execute_script("return arguments[0].style.clipPath", over)

    assert "50%" in cut()
    slider.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert "52%" in cut()
    slider.send_keys(Keys.HOME)
    assert cut().replace("px", "").replace("%", "") == "inset(0 0 0 0)"
    stage = chromium.find_element("css selector", ".example .stage")
    actions = chromium_actions(chromium)
    actions.move_to_element_with_offset(stage, stage.size["width"] // 4, 0).click().perform()
    assert 70 <= float(cut().split()[-1].rstrip("%)")) <= 80
    assert complaints(chromium) == []


def chromium_actions(chromium):
    from selenium.webdriver import ActionChains

    return ActionChains(chromium)


def test_any_two_panels_are_compared(chromium, large):
    look(chromium, large)
    button = chromium.find_element("css selector", ".example [data-panel=errors] button")
    source = "return arguments[0].querySelector('img').src"
    chromium.execute_script("arguments[0].click()", button)
    over = "return document.querySelector('.example .stage img:nth-of-type(2)').src"
    assert chromium.execute_script(over) == chromium.execute_script(source, button)
    assert button.get_attribute("aria-pressed") == "true"
    tag = chromium.find_element("css selector", ".example .tag.right")
    assert tag.get_attribute("textContent") == "errors"


def test_classes_under_the_pointer(chromium, large):
    look(chromium, large)
    stage = chromium.find_element("css selector", ".example .stage")
    said = chromium.find_element("css selector", ".example .said")
    for attempt in range(50):  # the classes are decoded when they are first asked for
        chromium_actions(chromium).move_to_element_with_offset(stage, attempt % 3, 40).perform()
        if said.text.strip():
            break
        time.sleep(0.1)
    assert any(name in said.text for name in NAMES)


def test_confusion_is_read_with_the_keyboard(chromium, large):
    from selenium.webdriver.common.keys import Keys

    look(chromium, large)
    view = chromium.find_element("css selector", ".heat-view")
    said = chromium.find_element("css selector", ".heat-said")
    view.send_keys(Keys.ARROW_DOWN, Keys.ARROW_DOWN, Keys.ARROW_RIGHT)
    assert f"truth {NAMES[1]} → prediction {NAMES[1]}" in said.text
    assert "pixels" in said.text
    view.send_keys(Keys.ARROW_DOWN, Keys.ARROW_DOWN)
    assert f"no {NAMES[3]} in the truth" in said.text
    zoom = chromium.find_element("css selector", ".heat-zoom")
    before = chromium.find_element("css selector", ".heat-cells").size["width"]
    zoom.send_keys(Keys.END)
    assert chromium.find_element("css selector", ".heat-cells").size["width"] >= 20 * K > before
    assert not overflows(chromium)
    assert complaints(chromium) == []


def test_curves_are_read_with_the_keyboard_and_tables_sorted(chromium, large):
    from selenium.webdriver.common.keys import Keys

    look(chromium, large)
    plots = chromium.find_elements("css selector", ".plot.lines")
    assert len(plots) == 3  # a curve of nothing but NaN is left out
    plots[1].send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert plots[1].find_element("css selector", ".reading").text == "1,000\n11 %"
    rows = "return [...document.querySelectorAll('tbody tr')].map(r => +r.cells[3].dataset.order)"
    head = chromium.find_elements("css selector", "th button")[3]
    for order in (True, False):
        chromium.execute_script("arguments[0].click()", head)
        pixels = chromium.execute_script(rows)
        assert pixels == sorted(pixels, reverse=order)
        assert len(pixels) >= 10


@pytest.mark.parametrize(
    ("memory", "said"),
    [
        ({"host": 2**30, "device": 2**31}, "1.0 GiB host, 2.0 GiB device"),
        ({"host": 2**30, "device": None}, "1.0 GiB host"),
        ({"host": None, "device": 2**31}, "2.0 GiB device"),
        ({"host": None, "device": None}, None),
    ],
)
def test_peak_memory_as_far_as_it_is_known(memory, said):
    facts = training_facts(RESULTS | {"peak_memory_bytes": memory})
    assert facts.get("peak memory") == said


def test_a_run_of_which_little_is_known(chromium, tmp_path):
    results = RESULTS | {
        "experiment": "<b>mine</b>", "task": "instance", "published": None,
        "metrics": {"ap": None, "ap50": 0.1, "box_ap": 0.2, "box_ap50": None,
                    "per_class_ap": {"cat": None, "dog": 0.1}, "per_class_box_ap": {"cat": None,
                                                                                "dog": None}},
        "protocol": {"inference": "detect", "scales": [800], "long_side": 1333, "flip": False,
                     "crf": False},
        "timing": {"train_seconds": None, "train_images_per_second": None,
                   "data_wait_fraction": None, "evaluate_seconds": 3.0},
        "peak_memory_bytes": {"host": 2**20, "device": None},
    }  # fmt: skip
    report = RunReport(results, "", {}, None, "There are no pictures: <i>", tmp_path)
    page = write_report(tmp_path / "report.html", report)
    look(chromium, page)
    assert complaints(chromium) == []
    text = chromium.find_element("css selector", "body").text
    for said in ("<b>mine</b>", "Curves are missing", "There are no pictures: <i>",
                 "short side 800", "Absent, left out of the mean: cat, dog."):  # fmt: skip
        assert said in text
    assert "undefined" not in text
    assert "NaN" not in text


def test_examples_without_classes(chromium, tmp_path):
    panels = {name: np.full((60, 90, 3), 50 * k, np.uint8)
              for k, name in enumerate(("image", "truth", "prediction", "errors"))}  # fmt: skip
    example = Example("a & b", "fine", panels, [Key("missed", (213, 94, 0))], None)
    report = RunReport(RESULTS, "", {}, None, {"best": [example], "worst": []}, tmp_path)
    look(chromium, write_report(tmp_path / "report.html", report))
    assert complaints(chromium) == []
    assert not chromium.find_elements("css selector", ".said")
    assert chromium.find_element("css selector", ".example h4").text == "a & b"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(3.21, "3.2 s"), (59.99, "60.0 s"), (125, "2 min 05 s"), (3600, "1 h 00 min"),
     (90000, "1 d 01 h")],
)  # fmt: skip
def test_durations(seconds, text):
    assert duration(seconds) == text
