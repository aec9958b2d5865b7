"""Every row of every zoo is whole: what it names is there, and fits together."""

import functools
import re

import pytest
import yaml
from conftest import composed

from segtrain.configuration.folder import conf_dir, options
from segtrain.errors import UserError
from segtrain.published.network import shapes
from segtrain.report.results import TITLES
from segtrain.table.published import read_published
from segtrain.zoo.catalogue import entries, every, find, is_row, row_of_file, select, zoo_names
from segtrain.zoo.classes import labels_of

METRICS = {*TITLES, "ap", "ap50", "ap75", "box_ap", "pq"}
FIELDS = {"like", "system", "file", "sha256", "size", "licence", "architecture", "dataset",
          "classes", "split", "protocols", "note", "epsilon", "sha1", "by_hand"}  # fmt: skip
ROWS = {row.weights: row for row in every()}
# Than the results table.
NEWER = ("SegFormer", "UPerNet", "Semantic FPN", "OCRNet", "PIDNet", "Mask2Former", "EoMT")
SYSTEMS = {figure.system for figure in read_published(conf_dir() / "published.yaml")[1]}


@pytest.mark.parametrize("zoo", zoo_names())
def test_files_of_zoos_hold_what_is_read(zoo):
    content = yaml.safe_load((conf_dir() / "zoo" / f"{zoo}.yaml").read_text())
    assert content.keys() >= {"title", "source", "address", "licence", "shared", "models"}
    for row in (*content["shared"].values(), *content["models"].values()):
        assert set(row) <= FIELDS
    assert entries(zoo)


@pytest.mark.parametrize("name", ROWS)
def test_a_row_says_what_it_has_to(name):
    row = ROWS[name]
    assert row.system in {*SYSTEMS, *NEWER}
    assert row.dataset in options("dataset")
    assert row.address.startswith("https://")
    assert row.sha256 is None or re.fullmatch("[0-9a-f]{6,64}", row.sha256)
    assert next(iter(row.protocols)) == "single" or "single" not in row.protocols
    assert row.architecture[0].startswith("architecture=")
    for protocol in row.protocols.values():
        assert all(o.startswith(("inference", "dataset.source.")) for o in protocol.inference)
        assert protocol.published.keys() <= METRICS
        assert all(1 < value < 100 for value in protocol.published.values()), "percent"
    if row.classes is not None:
        assert len(set(row.classes)) == len(row.classes)
        assert set(labels_of(row.dataset).names) <= set(row.classes)


@functools.cache
def network(architecture: tuple[str, ...], dataset: str) -> dict:
    config = composed(*architecture, "architecture.backbone.weights=none", f"dataset={dataset}")
    return shapes(config["architecture"], labels_of(dataset).num_classes)


@pytest.mark.parametrize(
    ("architecture", "dataset"), sorted({row.architecture: row.dataset for row in every()}.items())
)
def test_networks_of_the_rows_are_built(architecture, dataset):
    """Each once: other classes change nothing but classifiers, as the tests of networks hold."""
    assert any("classifier" in key for key in network(architecture, dataset))


@pytest.mark.parametrize(
    "overrides", sorted({p.inference for row in every() for p in row.protocols.values()})
)
def test_protocols_of_the_rows_are_composed(overrides):
    own = [o for o in overrides if not o.startswith("dataset.")]
    assert composed(*own)["inference"]["_target_"].startswith("segtrain.inference.")


def test_a_name_that_is_not_there_is_told_with_the_nearest():
    with pytest.raises(UserError, match="torchvision has no 'fcn_resnet5'; it has: .*fcn_resnet50"):
        find("torchvision/fcn_resnet5")
    with pytest.raises(UserError, match="there is no zoo 'torchvison'; there are .*torchvision"):
        find("torchvison/fcn_resnet50")


def test_names_of_rows_and_of_files(tmp_path, monkeypatch):
    assert is_row("torchvision/fcn_resnet50")
    assert not is_row("weights/fcn_resnet50.pth")
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "own.pth").touch()
    assert not is_row("torchvision/own.pth")
    row = find("torchvision/maskrcnn_resnet50_fpn")
    assert row_of_file("elsewhere/maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth") == row
    assert row_of_file("best.ckpt") is None
    name = "nvidia/segformer-b0-finetuned-ade-512-512"
    for spelling in (f"hf:{name}", f"hf/{name}", f"hf:{name}@v1.0"):
        assert is_row(spelling)
        assert find(spelling) == entries("hf")[name]
    assert find(f"hf:{name}").weights == f"hf:{name}"
    assert not is_row("hf:me/own")


def test_rows_are_selected_by_patterns_and_by_what_they_have():
    assert [row.name for row in select(["torchvision/fcn_*"])] == ["fcn_resnet50", "fcn_resnet101"]
    assert select(["fcn_resnet50"], zoo="torchvision") == [find("torchvision/fcn_resnet50")]
    assert {row.system for row in select(system="deeplabv3*")} >= {"DeepLabv3"}
    assert {row.dataset for row in select(dataset="coco2017")} == {"coco2017"}
    assert select(["hf:openmmlab/*-swin-*"]) == [find("hf:openmmlab/upernet-swin-tiny")]
    with pytest.raises(UserError, match="called 'fcn_resnet5'.*: .*torchvision/fcn_resnet50"):
        select(["fcn_resnet5"])
    with pytest.raises(UserError, match="system=unet: there are .*FCN"):
        select(system="unet")
