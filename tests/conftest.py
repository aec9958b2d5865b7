"""Fixtures: tiny runs of the embedded set, tiny file trees, and the real sample data."""

import functools
import gc
import json
import logging
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from omegaconf import DictConfig, OmegaConf
from PIL import Image

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
os.environ.setdefault("GOMP_SPINCOUNT", "20000")
if "PYTEST_XDIST_WORKER" in os.environ:  # the workers share the cores already
    os.environ.setdefault("OMP_NUM_THREADS", "1")
if not Path("/dev/nvidiactl").exists():  # no GPU: Triton's own interpreter runs kernels
    os.environ["TRITON_INTERPRET"] = "1"
for variable in ("COLUMNS", "LINES", "FORCE_COLOR"):  # the terminal of whoever runs the tests
    os.environ.pop(variable, None)

TINY = [
    "experiment=quickstart",
    "dataset.source.num_images={train: 12, val: 7, test: 7}",
    "dataset.source.size=[32, 32]",
    "dataset.transform.crop_size=[32, 32]",
    "dataset.num_workers=0",
    "architecture.backbone.name=test_resnet",
    "architecture.backbone.weights=none",
    "trainer.accelerator=cpu",
    "trainer.max_steps=4",
    "trainer.val_every_n_steps=4",
    "trainer.log_every_n_steps=2",
    "batch_size=4",
    "report=null",
]
# The same with a report, which takes as long as the training.
REPORTED = [override for override in TINY if override != "report=null"]

# What takes the place of `experiment=` and the sizes in TINY for networks that find instances.
TINY_INSTANCES = [
    "dataset.source.size=[64, 64]",
    "dataset.transform.short_side=[64, 64]",
    "dataset.transform.long_side=64",
]


@pytest.fixture(autouse=True)
def run_in_tmp(tmp_path, monkeypatch):
    """Runs write outputs/ where they are started; no worker variables leak in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SEGTRAIN_TRACEBACK", raising=False)


@pytest.fixture
def real_data() -> Path:
    """Root of the real sample data."""
    root = os.environ.get("SEGTRAIN_DATA")
    if not root or not (Path(root) / "camvid").is_dir():
        pytest.skip("SEGTRAIN_DATA does not hold the real sample data")
    return Path(root)


@pytest.fixture
def annotation_exports(real_data) -> Path:
    """Real exports of annotation tools."""
    folder = real_data / "annotation_exports"
    if not folder.is_dir():
        pytest.skip("SEGTRAIN_DATA holds no annotation_exports")
    return folder


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    """A cache for what one test reads."""
    monkeypatch.setenv("SEGTRAIN_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def segtrain(capfd):
    """Runs the command line in this process; returns exit code, stdout and stderr."""
    from segtrain.cli.main import main

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(list(arguments))
        out, err = capfd.readouterr()
        return code, out, err

    yield run
    for handler in logging.getLogger().handlers[:]:
        if handler.name == "segtrain":  # it writes to this test's captured output
            logging.getLogger().removeHandler(handler)
            handler.close()
    loky = sys.modules.get("joblib.externals.loky")
    if loky is not None:  # its processes would outlive the test, in the folder of their first job
        loky.get_reusable_executor().shutdown(kill_workers=True)


def pytest_collection_finish():
    """What has been imported stays: to look through it again and again is a tenth of the time."""
    gc.freeze()


def pytest_sessionfinish():
    """Libraries complain of what is not taken apart at the end."""
    gc.unfreeze()


def composed(*overrides: str, command: str = "train") -> dict:
    """A resolved configuration as the command gets it."""
    config = unresolved(*overrides, command=command)
    return {**OmegaConf.to_container(config, resolve=True), "experiment": "test"}


@functools.cache
def unresolved(*overrides: str, command: str = "train") -> DictConfig:
    """A configuration as it is before its references are resolved; not to be changed."""
    from hydra import compose, initialize_config_dir

    from segtrain.configuration.folder import conf_dir

    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose(command, list(overrides))


@functools.cache
def choices(experiment: str) -> dict:
    """The option of each group that an experiment chooses."""
    from hydra import compose, initialize_config_dir

    from segtrain.configuration.folder import conf_dir

    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = compose("train", [f"experiment={experiment}"], return_hydra_config=True)
    return dict(config.hydra.runtime.choices)


def architectures(kind: str) -> list[str]:
    """Names of the architectures of a kind: semantic, instance or mask_classification."""
    import yaml

    from segtrain.configuration.folder import conf_dir

    files = sorted((conf_dir() / "architecture").glob("*.yaml"))
    return [p.stem for p in files if f".{kind}." in yaml.safe_load(p.read_text())["_target_"]]


def small_network(*selection: str) -> list[str]:
    """Overrides that make a selected experiment's or architecture's network small and untrained."""
    architecture = composed(*selection)["architecture"]
    target = architecture["backbone"]["_target_"].rpartition(".")[2]
    values = {"weights": "none"}
    if "extra_blocks" in architecture:  # a cascade needs units to copy
        values |= {"name": "resnet26", "multi_grid": "[1,2]"}
    elif target == "TimmBackbone":
        values |= {"name": "test_resnet", "multi_grid": "null"}
        if architecture["backbone"].get("stride_in_1x1"):
            values["stride_in_1x1"] = "false"  # a basic block has no 1x1
    elif target == "MixTransformer":
        values |= {"name": "mit_b0", "drop_path": "0.0"}
    elif target in ("PlainViT", "SimpleFeaturePyramid"):
        values |= {"name": "test_vit"}
        if isinstance(architecture["backbone"].get("layers"), list):
            values |= {"layers": "[0,1,2,3]"}
    elif target == "HRNet":
        values |= {"name": "hrnet_w18_small"}
    elif target == "ThreeBranches":
        values |= {"name": "pidnet_s"}
    elif target == "Xception":
        values |= {"name": "xception41"}
    else:
        values |= {"channels": "[4,4,6,6,8]", "fc_channels": "16"}
    if "drop_path_rate" in architecture["backbone"].get("timm_arguments", {}):
        values["timm_arguments.drop_path_rate"] = "0.0"
    if "fc6_size" in architecture["backbone"]:
        values |= {"fc6_size": "2"}
    overrides = [f"architecture.backbone.{key}={value}" for key, value in values.items()]
    if "instance" in architecture["_target_"]:
        overrides += ["architecture.channels=16"]
        key = "width" if "width" in architecture else "box_width"
        overrides += [f"architecture.{key}=16"]
    if "mask_classification" in architecture["_target_"]:
        sizes = {"channels": 32, "encoder_layers": 1, "encoder_width": 16, "decoder_layers": 4,
                 "decoder_width": 16, "num_queries": 7, "query_blocks": 2}  # fmt: skip
        overrides += [f"architecture.{key}={size}" for key, size in sizes.items()
                      if key in architecture]  # fmt: skip
    if "extra_blocks" in architecture:
        overrides += ["architecture.multi_grid=[1,2]",
                      "+architecture.backbone.timm_arguments.channels=[8,8,8,8]"]  # fmt: skip
    return overrides


def enliven(model) -> None:
    """Lets the scores of a network with random weights differ from place to place, as trained."""
    import torch

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "classifier" in name and parameter.ndim == 4:
                parameter.normal_(0, 0.5)


def untrained(path: Path, *overrides: str) -> Path:
    """A checkpoint as a run with these overrides writes it, of a network with random weights."""
    import torch

    from segtrain.assembly import build_task, make

    config = composed(*overrides)
    torch.manual_seed(0)
    task = build_task(config, make(config["dataset"]["labels"]))
    enliven(task.model)
    entry = {"config": config, "epochs": 0.0, "labels": task.labels.to_plain()}
    state = {f"model.{name}": value for name, value in task.model.state_dict().items()}
    torch.save({"state_dict": state, "global_step": 0, "segtrain": entry}, path)
    return path


def only_run(pattern: str = "outputs/quickstart/*") -> Path:
    """The single run folder below the current folder."""
    (folder,) = Path.cwd().glob(pattern)
    return folder


def results_of(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text())


def write_pair(
    root: Path, name: str, mask: np.ndarray, image_size: tuple[int, int] | None = None
) -> None:
    """`images/<name>.jpg` with smooth random content and `masks/<name>.png`."""
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    height, width = image_size or mask.shape
    coarse = np.random.default_rng(len(name)).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize((width, height)).save(root / "images" / f"{name}.jpg")
    Image.fromarray(mask).save(root / "masks" / f"{name}.png")


def annotation(number, image, segmentation, category=1, crowd=0, bbox=(10, 10, 20, 20)) -> dict:
    """One entry of a COCO annotation file."""
    return {"id": number, "image_id": image, "category_id": category, "segmentation": segmentation,
            "iscrowd": crowd, "bbox": list(bbox), "area": 400.0}  # fmt: skip


def write_coco(root, annotations, images=(7, 3, 5), split="val2017", file=None) -> Path:
    """Black 60x40 images of one split and their annotation file; returns its path."""
    folder = root / split
    folder.mkdir(parents=True, exist_ok=True)
    entries = []
    for number in images:
        Image.new("RGB", (60, 40)).save(folder / f"{number:012}.jpg")
        entries.append({"id": number, "file_name": f"{number:012}.jpg", "height": 40, "width": 60})
    content = {"images": entries, "annotations": annotations, "categories": []}
    (root / "annotations").mkdir(exist_ok=True)
    path = root / "annotations" / (file or f"instances_{split}.json")
    path.write_text(json.dumps(content))
    return path


@pytest.fixture(scope="session")
def chromium():
    """A headless browser (see `browser`); the test is skipped where there is none."""
    import browser

    driver = browser.start()
    yield driver
    driver.quit()


@pytest.fixture
def folder_set(tmp_path) -> Path:
    """Eight 40x48 pairs of three classes, with lists of six and two."""
    root = tmp_path / "own"
    rng = np.random.default_rng(0)
    for index in range(8):
        write_pair(root, f"p{index}", rng.integers(0, 3, (40, 48), dtype=np.uint8))
    (root / "classes.txt").write_text("sky\nroad\ncar\n")
    (root / "train.txt").write_text("\n".join(f"p{i}" for i in range(6)))
    (root / "val.txt").write_text("p6\np7\n")
    return root
