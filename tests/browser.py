"""Pages in headless Chromium: what they say on the console, ask of the network, and do."""

import json
import shutil
from pathlib import Path

import pytest

WIDTHS = (400, 1280, 1920)


def start() -> object:
    """A headless browser; skips the test where there is none."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    binary = shutil.which("chromium") or shutil.which("chromium-browser")
    driver = shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("chromium and chromedriver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    # A container's root has no sandbox and little shared memory.
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))


def look(browser: object, path: Path | str, width: int = 1280, dark: bool = False) -> None:
    """Opens a page, a file or an address, in a window of that width."""
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    for kind in ("browser", "performance"):
        browser.get_log(kind)  # of the page before
    browser.get(path if isinstance(path, str) else path.resolve().as_uri())


def complaints(browser: object) -> list[str]:
    """What the console says of the page that was opened last."""
    return [entry["message"] for entry in browser.get_log("browser")]


def requests(browser: object) -> list[str]:
    """What the page that was opened last asked for, itself aside."""
    messages = (json.loads(entry["message"])["message"] for entry in browser.get_log("performance"))
    asked = [
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    ]
    own = browser.current_url.partition("#")[0]
    return [url for url in asked if not url.startswith("data:") and url.partition("#")[0] != own]


def overflows(browser: object) -> bool:
    """Whether the page must be scrolled sideways."""
    script = "return document.documentElement.scrollWidth > document.documentElement.clientWidth"
    return browser.execute_script(script)
