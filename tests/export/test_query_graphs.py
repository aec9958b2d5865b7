"""Every mask classification network of conf/ as a graph of its queries; a new one unasked."""

import numpy as np
import pytest
import torch
from conftest import architectures, composed, small_network

from segtrain.assembly import build_inference, build_model
from segtrain.dataset.labels import SHAPES_PANOPTIC
from segtrain.export.compare import REQUIRED_AGREEMENT, smooth_pictures
from segtrain.export.onnx import load_onnx, write_onnx
from segtrain.export.queries import DeployedQueries, compare_queries, found_in
from segtrain.export.torch_export import load_program, trace, write_program

NAMES = architectures("mask_classification")
PICTURES = smooth_pictures()
SIZES = [(65, 97), (48, 80)]


def lively(name: str) -> torch.nn.Module:
    """A small network whose queries are of several classes, and whose masks show something."""
    chosen = f"architecture={name}"
    torch.manual_seed(0)
    config = composed(chosen, "dataset=shapes_panoptic", *small_network(chosen))
    model = build_model(config, SHAPES_PANOPTIC.num_classes).eval()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if key.startswith(("classifier", "query_features", "mask_mlp")):
                parameter.normal_(0, 1)
    return model


def inference(kind: str, *overrides: str):
    node = composed(f"inference={kind}", "dataset=shapes_panoptic", *overrides)["inference"]
    return build_inference(node, SHAPES_PANOPTIC)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("format_name", ["torch_export", "onnx"])
def test_graphs_of_any_size_say_what_the_network_says(name, format_name, tmp_path):
    compare_graph(name, format_name, None, tmp_path)


def test_a_graph_of_one_size_says_what_the_network_says(tmp_path):
    compare_graph("eomt", "torch_export", (48, 80), tmp_path)


def compare_graph(name, format_name, fixed, tmp_path) -> None:
    """Its answers, and the segments that inference makes of them."""
    model = lively(name)
    network = DeployedQueries(model)
    program = trace(network, fixed)
    if format_name == "onnx":
        write_onnx(program, tmp_path / "model.onnx", {}, network.returns)
        run = load_onnx(tmp_path / "model.onnx")
    else:
        write_program(program, tmp_path / "model.pt2", {})
        run = load_program(tmp_path / "model.pt2")
    for size in SIZES if fixed is None else [fixed]:
        result = compare_queries(run, DeployedQueries(model), PICTURES, size)
        assert result.passed
        assert result.largest_difference <= 1e-4 * max(1.0, result.largest_logit)
    image = torch.from_numpy(np.stack(PICTURES[:1])).permute(0, 3, 1, 2)[:, :, :48, :80]
    image = image.contiguous()
    look = inference("panoptic", "inference.object_threshold=0", "inference.overlap_threshold=0")
    (expected,) = look(model, list(image))
    (found,) = found_in(*run(image), look)
    assert len(expected["labels"]) > 1
    assert torch.equal(found["labels"], expected["labels"])
    assert (found["map"] == expected["map"]).double().mean() >= REQUIRED_AGREEMENT


def test_instances_of_a_graph_s_outputs():
    model = lively(NAMES[0])
    image = torch.from_numpy(PICTURES[0][:48, :80]).permute(2, 0, 1)[None].contiguous()
    look = inference("masks")
    (expected,) = look(model, list(image))
    with torch.no_grad():
        (found,) = found_in(*DeployedQueries(model)(image), look)
    assert len(expected["labels"]) > 1
    for key in ("labels", "masks", "scores", "boxes"):
        torch.testing.assert_close(found[key], expected[key])


@pytest.mark.parametrize("change", ["class", "mask"])
def test_another_answer_is_seen(change):
    model = lively(NAMES[0])
    network = DeployedQueries(model)

    def other(image):
        classes, masks = network(image)
        return (classes.flip(2), masks) if change == "class" else (classes, -masks)

    assert compare_queries(network, network, PICTURES[:2], (48, 64)).passed
    assert not compare_queries(other, network, PICTURES[:2], (48, 64)).passed
