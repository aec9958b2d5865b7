"""`segtrain export format=hub`: what the folder holds, and that every reader of it agrees."""

import json
from pathlib import Path

import pytest
import torch
import transformers
import yaml
from conftest import TINY
from hub import logits_of, pushed
from predicting import picture, write_run
from serving import serving

import segtrain as package
from segtrain.picture import read_picture
from segtrain.report.results import file_sha256

SMALL = "compare_sizes=[[33,49]]"
SHAPES = "dataset=shapes"
BODY = "architecture.backbone.timm_arguments"
NETWORKS = {
    "segformer": ["architecture=segformer", SHAPES, "architecture.channels=16",
                  f"+{BODY}.embed_dims=[8,16,24,32]", f"+{BODY}.depths=[1,2,1,1]",
                  f"+{BODY}.num_heads=[1,4,3,2]"],
    "convnext": ["architecture=upernet", SHAPES, "architecture.channels=16",
                 "architecture.backbone.name=convnext_tiny", f"+{BODY}.dims=[8,16,24,32]",
                 f"+{BODY}.depths=[1,2,1,1]"],
    "swin": ["architecture=upernet", SHAPES, "architecture/backbone=swin_tiny",
             "architecture.channels=16", "architecture.backbone.weights=none",
             "architecture.backbone.name=swin_tiny_patch4_window7_224", f"+{BODY}.embed_dim=8",
             f"+{BODY}.depths=[1,2,1,1]", f"+{BODY}.num_heads=[1,2,2,4]",
             f"+{BODY}.window_size=3"],
}  # fmt: skip
OTHERS = {
    "parsenet": ["architecture=parsenet", SHAPES],
    "segformer of MMSegmentation": [*NETWORKS["segformer"], "architecture.projection_norm=true"],
    "upernet on a resnet": ["architecture=upernet", SHAPES, "architecture.channels=16",
                            "architecture.backbone.norm_maps=false"],
    "upernet without norms": [*NETWORKS["convnext"], "architecture.backbone.norm_maps=false"],
    "another activation": [*NETWORKS["convnext"], f"+{BODY}.act_layer=relu"],
    "another norm": [*NETWORKS["convnext"], f"+{BODY}.ls_init_value=null"],
}  # fmt: skip


def front_matter(folder: str) -> dict:
    return yaml.safe_load(Path(folder, "README.md").read_text().split("---\n")[1])


def exported(segtrain, run: Path, *arguments: str) -> dict:
    code, _, err = segtrain("export", f"run={run}", "format=hub", "output=net", SMALL, *arguments)
    assert code == 0, err
    assert {path.name for path in Path("net").iterdir()} == {
        "README.md", "config.json", "model.safetensors", "preprocessor_config.json"
    }  # fmt: skip
    return json.loads(Path("net/config.json").read_text())


def states(*sources: str | Path) -> list[dict]:
    return [package.load(source, device="cpu").model.state_dict() for source in sources]


def assert_equal(first: dict, second: dict) -> None:
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], value) for key, value in second.items())


@pytest.mark.parametrize("kind", NETWORKS)
def test_transformers_reads_the_folder_and_so_do_we(segtrain, tmp_path, kind):
    run = write_run(tmp_path / "run", *NETWORKS[kind])
    config = exported(segtrain, run)
    assert config["model_type"] == ("segformer" if kind == "segformer" else "upernet")
    transformers.logging.set_verbosity_error()
    theirs, told = transformers.AutoModelForSemanticSegmentation.from_pretrained(
        "net", output_loading_info=True
    )
    unused = {key for key in told["missing_keys"] if not key.startswith("backbone.swin.layernorm")}
    assert not unused
    assert not told["unexpected_keys"]
    predictor = package.load("net", device="cpu")
    assert_equal(predictor.model.state_dict(), *states(run))
    image = torch.from_numpy(read_picture(picture("a.png")).pixels.copy()).permute(2, 0, 1)[None]
    processor = transformers.AutoImageProcessor.from_pretrained("net")
    pixels = processor(images=image[0], return_tensors="pt")["pixel_values"]
    expected = predictor.model(image)["logits"]
    found = logits_of(theirs.eval(), pixels)
    assert (found - expected).abs().max() <= 1e-4 * expected.std()
    assert theirs.config.id2label == dict(enumerate(predictor.labels.names))


@pytest.mark.parametrize("name", OTHERS)
def test_other_networks_are_ours_alone(segtrain, tmp_path, name):
    run = write_run(tmp_path / "run", *OTHERS[name])
    config = exported(segtrain, run)
    assert "model_type" not in config
    assert config["library_name"] == "segtrain"
    assert config["segtrain_version"] == package.__version__
    assert "transformers" not in front_matter("net")["tags"]
    assert_equal(*states(run, "net"))


def test_it_is_read_again_by_every_command_and_from_the_hub(segtrain, tmp_path, monkeypatch):
    run = write_run(tmp_path / "run", *NETWORKS["segformer"])
    exported(segtrain, run, "licence=apache-2.0")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("no_proxy", "*")
    path, results = picture("a.png"), []
    data = ["dataset.source.num_images={train: 1, val: 2, test: 2}", "dataset.num_workers=0",
            "dataset.source.size=[32, 32]", "trainer.accelerator=cpu", "report=null"]  # fmt: skip
    with serving() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url(""))
        name = pushed(server, Path("net"), "me/net")
        assert_equal(*states(run, name))
        code, _, err = segtrain("predict", "weights=net", f"input={path}", "output=out")
        assert code == 0, err
        expected = json.dumps(package.load(run, device="cpu")(path).summary())
        told = json.loads(Path("out/a.json").read_text())
        assert json.loads(expected).items() <= told.items()
        for number, weights in enumerate((f"run={run}", f"weights={name}")):
            code, _, err = segtrain("evaluate", weights, "dataset=shapes", *data,
                                    f"hydra.run.dir=evaluated/{number}")  # fmt: skip
            assert code == 0, err
            file = Path(f"evaluated/{number}/results.json")
            results.append(json.loads(file.read_text())["metrics"])
    assert results[0] == results[1]
    code, _, err = segtrain("export", "weights=net", "format=hub", "output=again", SMALL)
    assert code == 0, err
    assert_equal(*states("net", "again"))
    assert "Those of `net`, whose licence holds" in Path("again/README.md").read_text()


def test_the_card_says_what_the_run_knows(segtrain, tmp_path):
    run = write_run(tmp_path / "run", *NETWORKS["segformer"])
    checkpoint = run / "checkpoints" / "best.ckpt"
    results = {"dataset": "shapes", "split": "test", "protocol": {"inference": "whole"},
               "metrics": {"miou": 0.625, "pixel_accuracy": 0.75, "per_class_iou": {"circle": 0.5}},
               "checkpoint_sha256": file_sha256(checkpoint)}  # fmt: skip
    (run / "results.json").write_text(json.dumps(results))
    exported(segtrain, run, "licence=cc-by-4.0")
    told = front_matter("net")
    assert told["license"] == "cc-by-4.0"
    assert told["pipeline_tag"] == "image-segmentation"
    assert told["datasets"] == ["shapes"]
    assert told["metrics"] == ["mean_iou", "accuracy"]
    (index,) = told["model-index"][0]["results"]
    assert index["metrics"][0]["value"] == 0.625
    text = Path("net/README.md").read_text()
    for part in ("| mIoU | 62.50 |", "SegFormer on `mit_b0` for 8 classes", "`circle`",
                 "SegformerForSemanticSegmentation", "segtrain.load"):  # fmt: skip
        assert part in text
    (run / "results.json").write_text(json.dumps(results | {"checkpoint_sha256": "of another"}))
    code, _, _ = segtrain("export", f"run={run}", "format=hub", "output=other", SMALL)
    assert code == 0
    assert "model-index" not in front_matter("other")
    assert front_matter("other")["license"] is None
    assert "to fill in" in Path("other/README.md").read_text()


def test_detectors_as_folders_of_the_hub(segtrain, tmp_path):
    run = write_run(tmp_path / "run", "architecture=mask_rcnn", "dataset=shapes_instances")
    exported(segtrain, run)
    assert_equal(*states(run, "net"))
    assert "instance-segmentation" in front_matter("net")["tags"]


@pytest.mark.slow
def test_a_trained_run_is_exported_with_its_scores(segtrain):
    assert segtrain(*TINY, "hydra.run.dir=run")[0] == 0
    exported(segtrain, Path("run"))
    scores = json.loads(Path("run/results.json").read_text())["metrics"]
    (index,) = front_matter("net")["model-index"][0]["results"]
    assert index["metrics"][0]["value"] == scores["miou"]
