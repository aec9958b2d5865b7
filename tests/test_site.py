"""The documentation as a site: built strictly, complete, and without anything from elsewhere."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from segtrain.cli.main import COMMANDS
from segtrain.configuration.folder import conf_dir

ROOT = Path(__file__).parents[1]
CONF = sorted(
    path
    for path in conf_dir().rglob("*.yaml")
    if "hydra" not in path.parts[-3:-1] and path.parent != conf_dir() / "zoo"  # tests/zoo
)


@pytest.fixture(scope="module")
def reference():
    spec = importlib.util.spec_from_file_location("reference", ROOT / "scripts" / "reference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def pages(reference):
    return reference.pages()


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.mark.parametrize("file", CONF, ids=lambda path: str(path.relative_to(conf_dir())))
def test_every_configuration_file_is_in_the_reference(file, pages):
    parts = file.relative_to(conf_dir()).with_suffix("").parts
    if parts == ("published",):
        assert "fcn8s_voc" in pages["reference/published.md"]
    elif len(parts) == 1:
        assert parts[0] in COMMANDS
        assert f"## `{parts[0]}`" in pages["reference/commands.md"]
    else:
        assert f"### `{'/'.join(parts[:-1])}={parts[-1]}`" in pages[f"reference/{parts[0]}.md"]


def test_keys_have_defaults_and_meanings(pages):
    commands = pages["reference/commands.md"]
    assert "| `batch_size` | `16` | images per optimiser step" in commands
    transform = pages["reference/dataset.md"]
    assert (
        "| `dataset.transform.crop_size` | `[512, 512]` | (height, width) in pixels. |" in transform
    )


def test_results_table_of_readme_is_that_of_the_code(reference):
    assert reference.results_table() in (ROOT / "README.md").read_text()


def test_pages_ask_for_nothing_from_elsewhere(site):
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 25
    for page in pages:
        text = page.read_text()
        fetched = re.findall(r"<(?:script|img|iframe)[^>]+src=\"?([^\" >]+)", text)
        fetched += re.findall(r"<link[^>]+rel=\"?(?:stylesheet|icon|preconnect)\"?[^>]*>", text)
        assert not [name for name in fetched if "//" in name], page
