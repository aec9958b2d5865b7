"""The tutorial notebook is clean, and runs from top to bottom without a network."""

import os
from pathlib import Path

import nbformat
import pytest
from fragments import Fragment
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "docs" / "tutorial.ipynb"
# A name that no zoo has, for what happens without a network.
QUICK = 'STEPS = OWN_STEPS = 2; PRETRAINED = "torchvision/none"'


@pytest.fixture
def notebook():
    return nbformat.read(NOTEBOOK, as_version=4)


def test_no_outputs_are_stored(notebook):
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code)


def test_links_lead_to_pages(notebook):
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    pages = [part.partition(")")[0] for part in text.split("](")[1:]]
    assert pages
    assert all((ROOT / "docs" / page).is_file() for page in pages)


@pytest.mark.slow
def test_every_cell_runs(notebook, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    (given,) = [number for number, cell in enumerate(notebook.cells)
                if "parameters" in cell.metadata.get("tags", [])]  # fmt: skip
    notebook.cells.insert(given + 1, nbformat.v4.new_code_cell(QUICK))
    where = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources=where).execute()
    assert len(list((tmp_path / "outputs" / "quickstart").iterdir())) == 2
    assert (tmp_path / "exported" / "model.safetensors").is_file()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    shown = [output["data"]["text/html"] for output in outputs
             if "text/html" in output.get("data", {})]  # fmt: skip
    assert sum(len(Fragment(html).pictures) for html in shown) >= 3
