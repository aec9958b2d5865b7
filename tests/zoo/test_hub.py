"""Networks of the Hugging Face hub: by name from a server in its layout, and from a folder."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from hub import (
    CLASSES,
    KINDS,
    STAGES,
    changed,
    full_size_of_masks,
    logits_of,
    pushed,
    reference,
    saved,
)
from safetensors.torch import load_file, save_file
from serving import serving
from zoo_parity import configured

from segtrain import UserError, build, load
from segtrain.assembly import rebuild, shapes
from segtrain.loading import find_trained
from segtrain.prepare import fetch
from segtrain.zoo.catalogue import entries
from segtrain.zoo.classes import labels_of
from segtrain.zoo.entry import Entry
from segtrain.zoo.hub import repository_of
from segtrain.zoo.recognition import recognise, renamed

LIMITS = {"segformer": 1e-5, "convnext": 1e-4, "swin": 1e-4}  # of the logits' deviation
NAME = "me/net"


@pytest.fixture
def server(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(fetch, "WAITS", ())
    with serving() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url(""))
        yield server


@pytest.fixture(scope="module")
def references():
    return {kind: reference(kind) for kind in KINDS}


@pytest.fixture(scope="module")
def folders(references, tmp_path_factory):
    place = tmp_path_factory.mktemp("hub")
    return {kind: saved(model, place / kind) for kind, model in references.items()}


@pytest.fixture
def folder(folders, tmp_path):
    """A SegFormer's, to change."""
    return Path(shutil.copytree(folders["segformer"], tmp_path / "net"))


def network(source: str) -> torch.nn.Module:
    return rebuild(find_trained(source, None, trust_code=False), None)[0]


def picture(height: int = 67, width: int = 90) -> torch.Tensor:
    generator = torch.Generator().manual_seed(height)
    return torch.randint(0, 256, (1, 3, height, width), generator=generator, dtype=torch.uint8)


def assert_same_logits(ours: torch.nn.Module, theirs: torch.nn.Module, limit: float) -> None:
    for size in ((64, 96), (67, 90)):
        image = picture(*size)
        expected = logits_of(theirs, ours.backbone.normalize(image))
        with torch.no_grad():
            found = ours(image)["logits"]
        assert found.shape == expected.shape
        assert (found - expected).abs().max() <= limit * expected.std()


@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_those_of_transformers(server, references, folders, kind):
    name = pushed(server, folders[kind], NAME)
    ours = network(name)
    assert_same_logits(ours, references[kind], LIMITS[kind])
    labels = load(name, device="cpu").labels
    assert labels.names == CLASSES


DEPTHS = {"mit_b0": [2, 2, 2, 2], "mit_b1": [2, 2, 2, 2], "mit_b2": [3, 4, 6, 3],
          "mit_b3": [3, 4, 18, 3], "mit_b4": [3, 8, 27, 3], "mit_b5": [3, 6, 40, 3]}  # fmt: skip


def of_full_size(row: Entry) -> torch.nn.Module:
    """The network of transformers that a row names, without values."""
    classes = labels_of(row.dataset).num_classes
    with torch.device("meta"):
        if row.system in ("Mask2Former", "EoMT"):
            return full_size_of_masks(row.name, classes)
        if row.system == "UPerNet":
            body = transformers.SwinConfig(out_features=STAGES)
            if "convnext" in row.name:
                body = transformers.ConvNextConfig(
                    hidden_sizes=[96, 192, 384, 768], depths=[3, 3, 9, 3], out_features=STAGES
                )
            return transformers.UperNetForSemanticSegmentation(transformers.UperNetConfig(
                backbone_config=body, num_labels=classes, auxiliary_in_channels=384,
            ))  # fmt: skip
        name = row.architecture[2].rpartition("=")[2]
        widths = [32, 64, 160, 256] if name == "mit_b0" else [64, 128, 320, 512]
        channels = 256 if name in ("mit_b0", "mit_b1") else 768
        return transformers.SegformerForSemanticSegmentation(transformers.SegformerConfig(
            depths=DEPTHS[name], hidden_sizes=widths, decoder_hidden_size=channels,
            num_labels=classes,
        ))  # fmt: skip


@pytest.mark.parametrize("row", {row.architecture: row for row in entries("hf").values()}.values(),
                         ids=lambda row: row.name)  # fmt: skip
def test_files_of_the_rows_are_told_by_their_names_and_fit(row):
    state = of_full_size(row).state_dict()
    zoo, found = recognise(state)
    classes = labels_of(row.dataset).num_classes
    assert (zoo, found.num_classes) == ("hf", classes)
    assert found.system.startswith(row.system)
    told, own = (configured(overrides)["architecture"]
                 for overrides in (found.architecture, row.architecture))  # fmt: skip
    assert told == own
    expected = {key: value.shape for key, value in shapes(own, classes).items()}
    assert {key: value.shape for key, value in renamed(state, {}).items()} == expected


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_of_the_modules_names_and_one_of_pytorch(references, folders, kind, tmp_path):
    """transformers 5 has other names than its files; older repositories have no safetensors."""
    expected = network(str(folders[kind])).state_dict()
    folder = tmp_path / "net"
    folder.mkdir()
    shutil.copy(folders[kind] / "config.json", folder)
    torch.save(references[kind].state_dict(), folder / "pytorch_model.bin")
    found = network(str(folder)).state_dict()
    assert all(torch.equal(found[key], value) for key, value in expected.items())


def test_files_are_fetched_once_and_a_revision_is_another_repository(server, folder):
    name = pushed(server, folder, NAME)
    first = network(name).state_dict()
    sent = server.sent
    assert sent > 0
    network(name)
    assert server.sent == sent
    weights = {key: value + 1 for key, value in load_file(folder / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors")
    second = network(pushed(server, folder, NAME, "v2.0")).state_dict()
    key = "head.classifier.bias"
    assert torch.allclose(second[key], first[key] + 1)
    assert repository_of(f"hf:{NAME}").folder != repository_of(f"hf:{NAME}@v2.0").folder


def test_weights_in_several_files(server, references, folders, tmp_path):
    folder = saved(references["segformer"], tmp_path / "net", max_shard_size="20KB")
    assert not (folder / "model.safetensors").exists()
    name = pushed(server, folder, NAME)
    expected = network(str(folders["segformer"])).state_dict()
    for source in (name, str(folder)):
        found = network(source).state_dict()
        assert all(torch.equal(found[key], value) for key, value in expected.items())


def test_classes_of_a_data_set_in_another_order(server, folder):
    names = labels_of("shapes").names
    model = reference("segformer", tuple(reversed(names)))
    saved(model, folder)
    predictor = load(pushed(server, folder, NAME), device="cpu")
    assert predictor.labels == labels_of("shapes")
    bias = model.state_dict()["decode_head.classifier.bias"].flip(0)
    assert torch.equal(predictor.model.state_dict()["head.classifier.bias"], bias)


def test_pictures_are_prepared_as_the_repository_says(server, folder):
    changed(folder, "preprocessor_config.json", image_mean=[0.5, 0.4, 0.3], size=48,
            image_std=[0.1, 0.2, 0.3], do_resize=True, resample=2)  # fmt: skip
    predictor = load(pushed(server, folder, NAME), device="cpu")
    normalize = predictor.model.backbone.normalize
    assert torch.allclose(normalize.mean.flatten() / 255, torch.tensor([0.5, 0.4, 0.3]))
    assert torch.allclose(normalize.std.flatten() / 255, torch.tensor([0.1, 0.2, 0.3]))
    assert predictor.inference.size == {"height": 48, "width": 48}
    assert predictor.inference.resampling == "pillow"


def test_a_listed_network_has_its_data_set_its_protocol_and_its_licence(server, folder, caplog):
    names = labels_of("cityscapes").names
    saved(reference("segformer", names), folder)
    changed(folder, "preprocessor_config.json", size=48)
    row = "nvidia/segformer-b0-finetuned-cityscapes-1024-1024"
    with caplog.at_level("INFO", "segtrain"):
        trained = find_trained(pushed(server, folder, row), None, trust_code=False)
    assert trained.labels == labels_of("cityscapes")
    assert trained.config["inference"]["window"]["crop_size"] == [1024, 1024]
    assert "non-commercial" in caplog.text
    given = load(f"hf:{row}", weights_file=folder, device="cpu")
    assert given.labels == labels_of("cityscapes")


@pytest.mark.parametrize("reason", ["offline", "no such repository"])
def test_what_cannot_be_fetched_is_told_with_all_that_a_person_needs(server, monkeypatch, reason):
    if reason == "offline":
        monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9/")
    with pytest.raises(UserError) as error:
        load(f"hf:{NAME}")
    for part in (f"/{NAME}/resolve/main/config.json", "weights=<folder>", "model.safetensors",
                 "Connection refused" if reason == "offline" else "404"):  # fmt: skip
        assert part in str(error.value)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("name", ["hf:", "hf:net", "hf:me/../net", "hf:me/net@", "hf:a/b@c/../d"])
def test_names_that_are_none(server, name):
    with pytest.raises(UserError, match="expected hf:<owner>/<name>"):
        load(name)
    assert server.ranges == []


HOSTILE = {
    "code of the repository": ({"auto_map": {"AutoModel": "evil.Model"}}, "auto_map"),
    "a class": ({"extra": {"_target_": "os.system", "command": "touch SEEN"}}, "os.system"),
    "a class of a network": (
        {"segtrain": {"architecture": {"_target_": "os.system"}, "inference": {}, "labels": {}}},
        "os.system",
    ),
    "a reference": ({"extra": "${oc.env:HOME}"}, "reference"),
    "a giant number": ({"decoder_hidden_size": 10**12}, "decoder_hidden_size is 1000000000000"),
    "a longer number": ({"hidden_sizes": [10**400] * 4}, "hidden_sizes is 1000"),
    "other sizes": ({"hidden_sizes": [8, 16, 24, 33]}, r"hidden_sizes is \[8, 16, 24, 33\], exp"),
    "other depths": ({"depths": [9999, 2, 1, 1]}, "depths is"),
    "heads that do not fit": ({"num_attention_heads": [3, 4, 3, 2]}, "num_attention_heads"),
    "another activation": ({"hidden_act": "relu"}, "hidden_act is relu, expected gelu"),
    "other classes": ({"id2label": {"0": "a", "1": "b"}}, "id2label is .*each of the 3 classes"),
    "no names": ({"id2label": {"0": "a", "1": "b", "2": 3}}, "id2label"),
    "no names at all": ({"id2label": 5}, "id2label is 5"),
    "another network": ({"model_type": "bert"}, "model_type is 'bert'"),
    "another body": ({"model_type": "upernet"}, "upernet"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_configurations_are_refused_with_one_message(server, folder, case):
    values, message = HOSTILE[case]
    name = pushed(server, changed(folder, **values), NAME)
    for source in (name, str(folder)):
        with pytest.raises(UserError, match=message) as error:
            load(source, device="cpu")
        assert "/net" in str(error.value)
    assert not Path("SEEN").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [('{"sizes": [NaN]}', "not finite"), ('{"a": 1e999}', "not finite"), ("[" * 9999, "JSON"),
     ("[]", "holds a list"), ('{"a": ' + "1" * 9999 + "}", "JSON"), ("\xff", "JSON")],
    ids=["nan", "infinite", "deep", "a list", "long", "no text"],
)  # fmt: skip
def test_files_that_are_no_description(server, folder, text, message):
    (folder / "config.json").write_text(text, encoding="latin1")
    with pytest.raises(UserError, match=message) as error:
        load(pushed(server, folder, NAME))
    assert "config.json" in str(error.value)
    assert not list(Path("torch").rglob("*.safetensors"))  # it was looked at first


@pytest.mark.parametrize("name", ["../../secret.safetensors", "/etc/passwd", "a/b.safetensors",
                                  "model.bin", ".hidden.safetensors", 3])  # fmt: skip
def test_an_index_that_leaves_its_folder(server, folder, name):
    (folder / "model.safetensors").unlink()
    changed(folder, "model.safetensors.index.json", weight_map={"a": name})
    for source in (pushed(server, folder, NAME), str(folder)):
        with pytest.raises(UserError, match="expected files of its own folder"):
            load(source)
    assert not [path for path in server.files if "secret" in path]


def test_numbers_of_our_own_that_no_memory_holds(server, folder):
    """A folder of ours says sizes without tensors for them."""
    trained = find_trained(str(folder), None, trust_code=False)
    node = trained.config["architecture"] | {"channels": 60_000}
    own = {"architecture": node, "inference": trained.config["inference"], "experiment": "x",
           "labels": trained.labels.to_plain()}  # fmt: skip
    changed(folder, segtrain=own)
    with pytest.raises(UserError, match="does not fit this architecture"):
        load(pushed(server, folder, NAME))
    node["channels"], node["backbone"]["timm_arguments"]["depths"] = 16, [50_000, 1, 1, 1]
    changed(folder, segtrain=own)
    with pytest.raises(UserError, match="depths is .*the file has"):
        load(folder)


@pytest.mark.parametrize("value", [torch.zeros(()), torch.zeros(0, 0), torch.zeros(5), None])
def test_tensors_that_no_such_network_has(folder, value):
    file = folder / "model.safetensors"
    whole = load_file(file)
    for key in (
        "decode_head.linear_fuse.weight", "segformer.encoder.block.0.0.attention.self.key.weight",
        "segformer.encoder.block.1.1.layer_norm_1.weight", "decode_head.classifier.bias",
        "segformer.encoder.block.0.0.mlp.dense1.weight",
    ):  # fmt: skip
        state = whole | {key: value}
        save_file({name: t for name, t in state.items() if t is not None}, file)
        with pytest.raises(UserError, match="/net"):
            load(folder)


def test_a_training_starts_from_the_hub_for_other_classes(server, folder, caplog):
    sizes = ["+architecture.backbone.timm_arguments.embed_dims=[8,16,24,32]",
             "+architecture.backbone.timm_arguments.depths=[1,2,1,1]",
             "+architecture.backbone.timm_arguments.num_heads=[1,4,3,2]",
             "architecture.channels=16"]  # fmt: skip
    for weights in (name := pushed(server, folder, NAME), str(folder)):
        with caplog.at_level("INFO", "segtrain"):
            model = build("segformer", num_classes=5, weights=weights, overrides=sizes)
        assert "trained anew, not in the file for these classes: head.classifier" in caplog.text
        assert f"licence     {name}: see {server.url(NAME)}" in caplog.text
        state, theirs = model.state_dict(), load_file(folder / "model.safetensors")
        assert state["head.classifier.weight"].shape[0] == 5
        assert torch.equal(state["backbone.body.patch_embed.proj.weight"],
                           theirs["segformer.encoder.patch_embeddings.0.proj.weight"])  # fmt: skip


def test_commands_take_names_and_folders(segtrain, server, folder):
    saved(reference("segformer", labels_of("shapes").names), folder)
    name = pushed(server, folder, NAME)
    small = ["trainer.accelerator=cpu", "report=null", "dataset.num_workers=0", "dataset=shapes",
             "dataset.source.num_images={train: 1, val: 2, test: 2}",
             "dataset.source.size=[32, 32]"]  # fmt: skip
    found = []
    for number, weights in enumerate((name, str(folder))):
        code, _, err = segtrain("evaluate", f"weights={weights}", *small,
                                f"hydra.run.dir=evaluated/{number}")  # fmt: skip
        assert code == 0, err
        found.append(json.loads(Path(f"evaluated/{number}/results.json").read_text()))
    assert found[0]["metrics"] == found[1]["metrics"]
    assert found[0]["zoo"]["name"] == name
    code, _, err = segtrain("evaluate", f"weights={name}", "dataset=voc", "protocol=single")
    assert code == 2
    assert "protocol=single is for networks that `segtrain zoo` lists" in err


def test_a_network_of_unknown_classes_wants_a_data_set(segtrain, server, folder):
    code, _, err = segtrain("evaluate", f"weights={pushed(server, folder, NAME)}")
    assert code == 2
    assert "give dataset=<name>" in err


def test_rows_of_the_hub_are_listed(segtrain):
    code, out, _ = segtrain("zoo", "zoo=hf", "name=hf:nvidia/*ade*")
    assert code == 0
    for part in ("hf:nvidia/segformer-b5-finetuned-ade-640-640", "51.80", "non-commercial"):
        assert part in " ".join(out.split())
    assert "cityscapes" not in out
