"""The page in headless Chromium."""

import threading
from pathlib import Path

import browser
import numpy as np
import pytest
from PIL import Image
from predicting import picture, write_run
from werkzeug.serving import make_server

from segtrain import load
from segtrain.demo.application import Application
from segtrain.picture import read_picture

SHOWN = """const layer = document.getElementById('layer');
return !document.getElementById('result').hidden && layer.complete && layer.naturalWidth > 0"""
PIXELS = """const layer = document.getElementById('layer');
const canvas = document.createElement('canvas');
[canvas.width, canvas.height] = [layer.naturalWidth, layer.naturalHeight];
const context = canvas.getContext('2d');
context.drawImage(layer, 0, 0);
return [...context.getImageData(0, 0, canvas.width, canvas.height).data]"""
DROP = """const moved = new DataTransfer();
moved.items.add(new File([new Uint8Array(arguments[0])], arguments[1]));
document.dispatchEvent(new DragEvent('drop', {dataTransfer: moved, bubbles: true}))"""


@pytest.fixture(scope="module")
def predictor(tmp_path_factory):
    return load(write_run(tmp_path_factory.mktemp("runs") / "run"), device="cpu")


@pytest.fixture
def address(predictor, tmp_path):
    about = {"name": "a network", "device": "cpu", "min_score": 0.5}
    example = picture("example.png", seed=5)
    page = Application(predictor, about, tmp_path, None, lambda: read_picture(example), str)
    server = make_server("127.0.0.1", 0, page, threaded=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.port}/"
    server.shutdown()
    thread.join()


def wait(chromium, seen) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(chromium, 20, poll_frequency=0.05).until(lambda _: seen())


def opened(chromium, address: str, width: int = 1280, dark: bool = False):
    """The page, and a function that finds its parts."""
    from selenium.webdriver.common.by import By

    browser.look(chromium, address, width, dark)
    wait(chromium, lambda: chromium.title.startswith("a network"))
    return lambda name: chromium.find_element(By.ID, name)


def drop(chromium, path: Path) -> None:
    chromium.execute_script(DROP, list(path.read_bytes()), path.name)


def layer(chromium) -> np.ndarray:
    """(H, W, 4) of the overlay."""
    wait(chromium, lambda: chromium.execute_script(SHOWN))
    return np.array(chromium.execute_script(PIXELS), np.uint8).reshape(48, 64, 4)


def test_a_dropped_picture_is_switched_and_downloaded(chromium, address, predictor, tmp_path):
    part, path = opened(chromium, address), picture("a.png")
    drop(chromium, path)
    before, expected = layer(chromium), predictor(path)
    name = next(name for name in expected.names if name != "background")
    colour = predictor.labels.palette[predictor.labels.names.index(name)]
    where = expected.mask(name)
    assert (before[where][:, :3] == colour).all(axis=1).mean() > 0.2  # the rest are outlines
    switch = part("switches").find_element("xpath", f".//label[contains(., '{name}')]/input")
    switch.send_keys(" ")  # by the keyboard
    wait(chromium, lambda: not (layer(chromium)[where][:, :3] == colour).all(axis=1).any())
    part("none").click()
    wait(chromium, lambda: not layer(chromium).any())
    part("opacity").send_keys("\ue011")  # Home: the least
    assert part("layer").value_of_css_property("opacity") == "0"
    allowed = {"behavior": "allow", "downloadPath": str(tmp_path / "got")}
    chromium.execute_cdp_cmd("Browser.setDownloadBehavior", allowed)
    chromium.find_element("link text", "Label map").click()
    stored = tmp_path / "got" / "a.png"
    wait(chromium, stored.is_file)
    assert np.array_equal(Image.open(stored), expected.labels)
    assert browser.complaints(chromium) == []


def test_nothing_is_asked_of_other_hosts(chromium, address):
    opened(chromium, address)
    drop(chromium, picture("a.png"))
    layer(chromium)
    asked = browser.requests(chromium)
    assert len(asked) >= 5
    assert [url for url in asked if not url.startswith(address)] == []


def test_an_error_is_shown_and_an_example_after_it(chromium, address):
    part, path = opened(chromium, address), Path("a <b>poem.jpg")
    path.write_text("a poem")
    drop(chromium, path)
    wait(chromium, lambda: "error" in part("status").get_attribute("class"))
    assert part("status").text.startswith("a <b>poem.jpg: not a readable image")
    assert not part("result").is_displayed()
    part("example").click()
    assert layer(chromium).any()
    assert "error" not in part("status").get_attribute("class")


@pytest.mark.parametrize("width", [400, 1280])
@pytest.mark.parametrize("dark", [False, True])
def test_it_fits_and_is_reached_by_the_keyboard(chromium, address, width, dark):
    from selenium.webdriver import ActionChains, Keys

    part = opened(chromium, address, width, dark)
    drop(chromium, picture("a.png"))
    layer(chromium)
    assert not browser.overflows(chromium)
    reached = []
    for _ in range(12):
        ActionChains(chromium).send_keys(Keys.TAB).perform()
        focused = chromium.switch_to.active_element
        assert focused.value_of_css_property("outline-style") != "none"
        assert focused.accessible_name, focused.get_attribute("outerHTML")[:200]
        reached.append(focused.get_attribute("id") or focused.tag_name)
    assert [name for name in reached if name != "input"][:5] == [
        "file", "example", "opacity", "all", "none"
    ]  # fmt: skip
    assert part("view").size["height"] <= 0.8 * 900 + 1
