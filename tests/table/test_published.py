"""The published figures, and which results stand beside them."""

from dataclasses import replace

import pytest
from conftest import composed
from tabling import training, write_results

from segtrain.cli.chain import stages
from segtrain.cli.table import published_sheets
from segtrain.configuration.folder import conf_dir, options
from segtrain.errors import UserError
from segtrain.table.changes import changes
from segtrain.table.groups import group_runs
from segtrain.table.published import read_published
from segtrain.table.runs import find_runs

BENCHMARKS, FIGURES = read_published(conf_dir() / "published.yaml")
VALUES = {
    "FCN": {"voc": 62.2},
    "ParseNet": {"voc": 69.8, "context": 40.4},
    "Conv & Deconv": {"voc": 72.5},
    "FPN": {"coco2016_ar": 48.1},
    "PSPNet": {"voc": 85.4, "cityscapes": 80.2},
    "Mask R-CNN": {"coco2016_ap": 37.1, "coco2017_ap": 41.8},
    "DeepLab (v2)": {"voc": 79.7, "context": 45.7, "cityscapes": 70.4},
    "DeepLabv3": {"voc": 86.9, "cityscapes": 81.3},
    "DeepLabv3+": {"voc": 89.0, "cityscapes": 82.1},
    "PANet": {"coco2016_ap": 42.0, "coco2017_ap": 46.7},
    "EncNet": {"voc": 85.9, "context": 52.6},
}
ids = [f"{figure.system}-{figure.benchmark}" for figure in FIGURES]


def test_the_table_is_the_published_one():
    found: dict = {}
    for figure in FIGURES:
        found.setdefault(figure.system, {})[figure.benchmark] = figure.value
    assert found == VALUES
    assert list(found) == list(VALUES)
    assert list(BENCHMARKS) == ["voc", "context", "coco2016_ap", "coco2016_ar", "coco2017_ap",
                                "cityscapes"]  # fmt: skip


@pytest.mark.parametrize("figure", FIGURES, ids=ids)
def test_a_cell_names_experiments_on_its_data_and_protocols_that_there_are(figure):
    benchmark = BENCHMARKS[figure.benchmark]
    for name in (*figure.experiments, *figure.trained_on_val):
        assert composed(f"experiment={name}")["dataset"]["name"] in benchmark.datasets
        assert stages(name, conf_dir())[-1] == name
    if figure.evaluate:
        assert composed(*figure.evaluate, command="evaluate")["inference"]["_target_"]
    assert figure.comparable == (figure.note is None)


def test_every_recipe_of_the_table_is_in_it():
    """Stages, variants of FCN, Cityscapes' instances, COCO-Stuff and newer networks are not."""
    named = {name for f in FIGURES for name in (*f.experiments, *f.trained_on_val)}
    of_stages = {stage for name in named for stage in stages(name, conf_dir())}
    ends = ("_voc", "_context", "_cityscapes", "_coco", "_coco2016", "_coco2017", "_trainval")
    others = {name for name in options("experiment") if name.endswith(ends)} - named - of_stages
    assert others == {"fcn_torchvision_voc", "mask_rcnn_cityscapes", "panet_cityscapes",
                      "segformer_cityscapes", "ocrnet_cityscapes", "pidnet_cityscapes",
                      "dinov2_linear_voc", "mask2former_cityscapes", "mask2former_coco",
                      "eomt_cityscapes", "eomt_coco"}  # fmt: skip


def test_a_damaged_file_is_told(tmp_path):
    path = tmp_path / "published.yaml"
    path.write_text("benchmarks: {}\nsystems: {FCN: {voc: {value: 1}}}")
    with pytest.raises(UserError, match=r"published\.yaml"):
        read_published(path)


def cells_of(*systems) -> dict[str, list[str]]:
    """Lines of the VOC and Context cells of systems, and the notes."""
    sheet, listed = published_sheets(group_runs(find_runs(["outputs"])[0]))
    rows = {row[0].text: row for row in sheet.rows}
    assert len(rows) == len(VALUES)
    found = {system: [cell.text.split("\n") for cell in rows[system][1:3]] for system in systems}
    found["notes"] = sheet.notes
    found["listed"] = [[cell.text for cell in row] for row in listed.rows]
    return found


def full(name: str) -> dict:
    return {**composed(f"experiment={name}"), "experiment": name}


def test_test_server_against_val_is_marked():
    config = full("deeplabv3_voc")
    write_results("outputs/a", config, miou=0.77, seed=1)
    write_results("outputs/b", config, miou=0.78, seed=2)
    found = cells_of("DeepLabv3")
    paper, ours, difference, how = found["DeepLabv3"][0]
    assert paper.startswith("86.9 [")
    assert ours == "77.50 ± 0.71"
    assert difference == "(−9.40), n=2"
    assert how == "val, whole, stride 16"
    mark = paper.split(" ")[1]
    (note,) = [note for note in found["notes"] if note.startswith(mark)]
    assert "test server" in note
    assert "JFT-300M" in note
    assert "split val, not test" in note
    assert "Not the recipe" not in note


@pytest.fixture
def comparable_context(monkeypatch):
    """ParseNet's figure on Context as one that a result here can be compared with."""
    figures = [replace(f, comparable=True, note=None) if f.benchmark == "context" else f
               for f in FIGURES]  # fmt: skip
    monkeypatch.setattr("segtrain.cli.table.read_published", lambda path: (BENCHMARKS, figures))


def test_like_with_like_has_no_brackets(comparable_context):
    config = full("parsenet_context")
    write_results("outputs/a", config, miou=0.414, experiment="parsenet_context", dataset="context")
    found = cells_of("ParseNet")
    assert found["ParseNet"][1] == ["40.4", "41.40", "+1.00, n=1", "val, whole, stride 16"]
    (row,) = [row for row in found["listed"] if "parsenet_context" in row]
    assert row[-2:] == ["yes", ""]  # comparable


def test_protocols_are_never_averaged_and_the_closest_is_shown(comparable_context):
    config = full("parsenet_context")
    of = {"experiment": "parsenet_context", "dataset": "context"}
    write_results("outputs/a", config, miou=0.414, **of)
    write_results("outputs/b", config, miou=0.500, protocol={"flip": True}, **of)
    found = cells_of("ParseNet")
    assert found["ParseNet"][1][1] == "41.40"
    (note,) = [note for note in found["notes"] if "50.00" in note]
    assert note.startswith("[")
    assert "parsenet_context, val, whole, stride 16, flip, n=1" in note


def test_a_shortened_recipe_is_marked(comparable_context):
    config = full("parsenet_context")
    config["trainer"]["max_steps"] = 100
    write_results("outputs/a", config, miou=0.1, experiment="parsenet_context", dataset="context")
    found = cells_of("ParseNet")
    assert found["ParseNet"][1][2] == "(−30.40), n=1"
    assert any("Not the recipe: trainer.max_steps 100, not 20000" in n for n in found["notes"])


def test_val_that_was_trained_on_fills_no_cell():
    write_results("outputs/a", training(), experiment="deeplabv3_voc_trainval", miou=0.99)
    write_results("outputs/b", training(), experiment="mine", miou=0.99)
    found = cells_of("DeepLabv3")
    assert len(found["DeepLabv3"][0]) == 1
    assert any("deeplabv3_voc_trainval: 99.00 on val means nothing" in n for n in found["notes"])
    assert "1 more results belong to no cell; layout=runs shows all." in found["notes"]


def test_changes_are_of_what_makes_a_training():
    recipe = full("deeplabv3_voc_coco")
    same = full("deeplabv3_voc_coco") | {"seed": 7, "weights": "x/best.ckpt"}
    same["dataset"]["num_workers"] = 3
    same["architecture"]["backbone"]["weights"] = "resnet101.pth"
    assert changes(same, recipe) == []
    assert changes(same | {"weights": None}, recipe) == ["not started from deeplabv3_cocovoc"]
    assert changes(same | {"batch_size": 4}, recipe) == ["batch_size 4, not 16"]
