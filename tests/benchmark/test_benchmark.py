import json

import pytest
from conftest import only_run

from segtrain.cli.main import options

FAST = {
    "loader": ["measure.samples=4", "measure.rounds=1", "measure.num_workers=[0]"],
    "metric": ["measure.rounds=1", "measure.shape=[1, 64, 64]"],
    "model": [
        "measure.rounds=1", "measure.size=[64, 64]", "batch_size=2",
        "architecture.backbone.name=resnet50", "architecture.backbone.weights=none",
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", options("measure"))
def test_measures_and_writes(name, segtrain):
    code, out, err = segtrain("benchmark", f"measure={name}", *FAST[name])
    assert code == 0, err
    content = json.loads((only_run("outputs/benchmark/*") / "benchmark.json").read_text())
    assert content["rows"]
    assert "torch" in content["versions"]
    if name == "metric":
        assert max(row["largest IoU difference"] for row in content["rows"]) < 1e-6
    if name == "model":
        (row,) = content["rows"]
        assert row["parameters"] > 20e6
        assert row["GFLOPs"] > 1


def test_loader_reads_real_files(segtrain, real_data):
    code, _, err = segtrain("benchmark", "measure=loader", "dataset=voc", *FAST["loader"])
    assert code == 0, err
