"""The page of model cards has every row, with what is known of it."""

import importlib.util
from pathlib import Path

import pytest
import yaml

from segtrain.zoo.catalogue import entries, zoo_names

ROOT = Path(__file__).parents[2]
spec = importlib.util.spec_from_file_location("cards", ROOT / "scripts" / "zoo.py")
cards = importlib.util.module_from_spec(spec)
spec.loader.exec_module(cards)


@pytest.fixture(autouse=True)
def sizes(monkeypatch):
    """Networks are built by another test."""
    monkeypatch.setattr(cards, "parameters", lambda architecture, dataset: 12345)


@pytest.mark.parametrize("zoo", zoo_names())
def test_every_row_is_on_the_page_with_its_figures(zoo):
    page = cards.page()
    assert f"{{ #{zoo} }}" in page
    for row in entries(zoo).values():
        (line,) = [line for line in page.splitlines() if line.startswith(f"| `{row.weights}` ")]
        figures = [v for protocol in row.protocols.values() for v in protocol.published.values()]
        for part in (row.system, row.split, row.address, "12,345", row.sha256 or "",
                     *(f" {figure:g}" for figure in figures)):  # fmt: skip
            assert part in line
        assert row.note is None or row.note.strip() in page


@pytest.mark.parametrize("file", sorted((ROOT / "docs" / "zoo").glob("*.yaml")), ids=str)
def test_parities_are_of_rows(file):
    assert set(yaml.safe_load(file.read_text())["parity"]) <= set(entries(file.stem))


def test_parameters_are_counted_without_building(monkeypatch):
    monkeypatch.undo()
    row = entries("torchvision")["fcn_resnet50"]
    assert cards.parameters(row.architecture, row.dataset) == 35_322_218
