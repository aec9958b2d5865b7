"""Mask2Former and EoMT of the Hugging Face hub: by name from a server in its layout."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from hub import changed, pushed, saved
from mask_classifiers import (
    STAGES,
    assert_same,
    eomt,
    mask2former,
    over_image,
    padded,
    random_image,
)
from randomised import randomise
from serving import serving
from torch import nn
from transformers import EomtImageProcessor, Mask2FormerImageProcessor, ResNetConfig, SwinConfig

from segtrain import UserError, load
from segtrain.assembly import rebuild
from segtrain.contracts import Queries
from segtrain.loading import find_trained
from segtrain.zoo.classes import labels_of
from segtrain.zoo.names import hf

LIMITS = {"mask2former_swin": 1e-4, "mask2former_resnet": 1e-4, "eomt": 1e-5, "eomt_dinov3": 1e-5}
CLASSES = ("circle", "square", "background")
NAME = "me/net"
HEAD = {"feature_size": 32, "mask_feature_size": 32, "hidden_dim": 32, "num_attention_heads": 4,
        "num_queries": 9, "encoder_layers": 2, "encoder_feedforward_dim": 48, "decoder_layers": 4,
        "dim_feedforward": 40}  # fmt: skip
PLAIN = {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "num_blocks": 2,
         "num_queries": 7, "image_size": 64}  # fmt: skip


def reference(kind: str, classes: tuple[str, ...] = CLASSES) -> nn.Module:
    """A small network of transformers with weights that no layer may ignore."""
    names = {"num_labels": len(classes), "id2label": dict(enumerate(classes)),
             "label2id": {name: index for index, name in enumerate(classes)}}  # fmt: skip
    if kind == "mask2former_swin":
        body = SwinConfig(embed_dim=24, depths=[1, 2, 1, 1], num_heads=[1, 2, 3, 4],
                          window_size=3, out_features=STAGES)  # fmt: skip
        return randomise(mask2former(body, **HEAD, **names))
    if kind == "mask2former_resnet":
        body = ResNetConfig(hidden_sizes=[32, 64, 96, 128], depths=[2, 1, 1, 1],
                            out_features=STAGES)  # fmt: skip
        return randomise(mask2former(body, **HEAD, **names))
    more = {"dinov3": True, "intermediate_size": 192} if kind == "eomt_dinov3" else {}
    model = randomise(eomt(**PLAIN, **more, **names))
    model.attn_mask_probs.zero_()  # as at the end of a training
    return model


@pytest.fixture(scope="module")
def references():
    return {kind: reference(kind) for kind in LIMITS}


@pytest.fixture(scope="module")
def folders(references, tmp_path_factory):
    place = tmp_path_factory.mktemp("hub")
    return {kind: saved(model, place / kind) for kind, model in references.items()}


@pytest.fixture
def server(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("no_proxy", "*")
    with serving() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url(""))
        yield server


def network(source: str) -> nn.Module:
    return rebuild(find_trained(source, None, trust_code=False), None)[0]


@torch.no_grad()
def assert_same_queries(ours: nn.Module, theirs: nn.Module, side: int, limit: float) -> None:
    for size in ((64, 64), (50, 61)):
        image = random_image(*size)
        outputs = theirs(padded(ours.backbone.normalize(image), side))
        expected: Queries = {
            "class_logits": outputs.class_queries_logits,
            "mask_logits": over_image(outputs.masks_queries_logits, image, side),
        }
        assert_same(ours.queries(image), expected, limit)


@pytest.mark.parametrize("kind", LIMITS)
def test_queries_are_those_of_transformers(server, references, folders, kind):
    name = pushed(server, folders[kind], NAME)
    side = 16 if kind.startswith("eomt") else 32
    assert_same_queries(network(name), references[kind], side, LIMITS[kind])
    assert load(name, device="cpu").labels.names == CLASSES


@pytest.mark.parametrize("kind", LIMITS)
def test_names_of_modules_and_files_of_pytorch(references, folders, kind, tmp_path):
    expected = network(str(folders[kind])).state_dict()
    shutil.copy(folders[kind] / "config.json", tmp_path)
    state = references[kind].state_dict()
    torch.save(state, tmp_path / "pytorch_model.bin")
    found = network(str(tmp_path)).state_dict()
    assert all(torch.equal(found[key], value) for key, value in expected.items())
    assert hf.recognised(state).num_classes == len(CLASSES)


def test_epsilons_of_norms_are_those_of_the_repository(folders, tmp_path):
    """Those of DINOv3 in transformers are not timm's."""
    folder = Path(shutil.copytree(folders["eomt_dinov3"], tmp_path / "net"))
    norms = [part.eps for part in network(str(folder)).backbone.modules()
             if isinstance(part, nn.LayerNorm)]  # fmt: skip
    assert set(norms) == {1e-6}
    other = network(str(changed(folder, layer_norm_eps=1e-3)))
    assert other.backbone.body.norm.eps == 1e-3


@pytest.mark.parametrize("kind", ["mask2former_resnet", "eomt"])
@pytest.mark.parametrize(
    ("dataset", "inference"),
    [("shapes_panoptic", "panoptic"), ("shapes_instances", "masks"), ("shapes", "semantic")],
)
def test_classes_of_a_data_set_and_what_its_labels_ask_for(kind, dataset, inference, tmp_path):
    """In another order; that a query is of no class stays last."""
    labels = labels_of(dataset)
    model = reference(kind, tuple(reversed(labels.names)))
    predictor = load(saved(model, tmp_path / "net"), device="cpu")
    assert predictor.labels == labels
    assert predictor.inference.__module__ == f"segtrain.inference.{inference}"
    *classes, none = model.class_predictor.bias
    expected = torch.stack([*reversed(classes), none])
    assert torch.equal(predictor.model.classifier.bias, expected)


def test_classes_that_nobody_named_are_taken_by_their_place(folders, tmp_path):
    folder = Path(shutil.copytree(folders["eomt"], tmp_path / "net"))
    names = {str(index): f"LABEL_{index}" for index in range(3)}
    changed(folder, id2label=names, label2id=None)
    assert load(folder, device="cpu").labels.names == tuple(names.values())


def test_pictures_are_looked_at_as_the_repository_says(tmp_path):
    folder = saved(reference("mask2former_resnet", labels_of("shapes_panoptic").names), tmp_path)
    Mask2FormerImageProcessor(size={"shortest_edge": 80, "longest_edge": 133}).save_pretrained(
        folder
    )
    look = load(folder, device="cpu").inference.look
    assert look.size == {"short": 80, "long": 133}
    assert look.least_size is None
    assert look.resampling == "pillow"
    size = {"shortest_edge": 64, "longest_edge": 64}
    EomtImageProcessor(size=size, do_pad=True).save_pretrained(folder)
    look = load(folder, device="cpu").inference.look
    assert look.size == {"short": 64, "long": 64}
    assert list(look.least_size) == [64, 64]
    assert look.fill == "black"


def test_classes_of_pixels_are_found_in_the_windows_of_eomt(folders, tmp_path):
    folder = Path(shutil.copytree(folders["eomt"], tmp_path / "net"))
    size = {"shortest_edge": 64, "longest_edge": None}
    EomtImageProcessor(size=size, do_split_image=True).save_pretrained(folder)
    file = folder / "preprocessor_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"size": size}))
    inference = load(folder, device="cpu").inference
    assert inference.size == {"short": 64}
    assert inference.protocol["crop_size"] == inference.protocol["stride"] == [64, 64]


HOSTILE = {
    "another width": ("mask2former_swin", {"hidden_dim": 64}, "hidden_dim is 64, expected 32"),
    "more layers": ("mask2former_swin", {"decoder_layers": 9}, "decoder_layers is 9, expected 4"),
    "norms in front": ("mask2former_swin", {"pre_norm": True}, "pre_norm is True"),
    "another body": ("mask2former_swin", {"backbone_config": {"model_type": "bert"}}, "bert"),
    "no body": ("mask2former_resnet", {"backbone_config": 3}, "mask2former_None"),
    "another kind": ("mask2former_resnet", {"model_type": "eomt"}, "describes eomt"),
    "heads that do not fit": ("eomt", {"num_attention_heads": 7}, "num_attention_heads is 7"),
    "no heads": ("eomt", {"num_attention_heads": [1]}, r"num_attention_heads is \[1\]"),
    "other positions": ("eomt", {"image_size": [64, 80]}, "position embeddings"),
    "another epsilon": ("eomt", {"layer_norm_eps": "x"}, "layer_norm_eps is x"),
    "gates": ("eomt_dinov3", {"use_gated_mlp": True}, "use_gated_mlp is True"),
    "other classes": ("eomt_dinov3", {"id2label": {"0": "a"}}, "each of the 3 classes"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_configurations_that_are_not_of_their_tensors(folders, tmp_path, case):
    kind, values, message = HOSTILE[case]
    folder = changed(Path(shutil.copytree(folders[kind], tmp_path / "net")), **values)
    with pytest.raises(UserError, match=message) as error:
        load(folder, device="cpu")
    assert "/net" in str(error.value)
