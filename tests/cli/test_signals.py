"""Every command ends soon when it is asked to, at whatever moment."""

import signal
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import TINY
from PIL import Image
from processes import end, kill, start

COMMANDS = {
    "train": [*TINY, "trainer.max_steps=2000", "trainer.val_every_n_steps=1000"],
    "evaluate": ["run=run", "dataset.source.num_images={train: 12, val: 7, test: 20000}",
                 "dataset=shapes", "dataset.source.size=[32, 32]"],
    "predict": ["run=run", "input=photos", "output=labels", "num_workers=0"],
    "export": ["run=run", "format=torch_export", "output=exported"],
    "report": ["run=run"],
    "prepare": ["dataset=shapes", "dataset.source.num_images={train: 20000, val: 7, test: 7}",
                "verify=true"],
    "table": ["layout=runs"],
    "plan": ["experiments=[deeplabv3_shapes,pspnet_shapes]"],
    "benchmark": ["measure=step", "measure.rounds=1000", "measure.size=[33, 33]", "batch_size=2",
                  "architecture=deeplabv3_torchvision", "architecture.backbone.weights=none"],
    "reproduce": ["experiments=[deeplabv3_shapes]", "trainer.accelerator=cpu",
                  "hydra.run.dir=again"],
    "chain": ["experiment=deeplabv3_shapes", "trainer.accelerator=cpu"],
    "zoo": ["system=PSPNet"],
    "demo": ["run=run", "port=0"],
}  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("signals") / "run"
    code, _, err = end(start("-m", "segtrain", *TINY, f"hydra.run.dir={folder}"))
    assert code == 0, err
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("after", [0.2, 3.0, 12.0])  # imports, what comes before the work, the work
@pytest.mark.parametrize("command", COMMANDS)
def test_a_signal_ends_a_command(run, command, after, number):
    """With the signal's own exit code, no traceback, and nothing half written."""
    Path("run").symlink_to(run)
    Path("photos").mkdir()
    rng = np.random.default_rng(0)
    for index in range(200):
        Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)).save(f"photos/{index}.png")
    process = start("-m", "segtrain", command, *COMMANDS[command])
    time.sleep(after)
    process.send_signal(number)
    sent = time.monotonic()
    try:
        code, out, err = end(process, timeout=60)
    finally:
        if process.poll() is None:
            kill(process)
    assert time.monotonic() - sent < 20  # ten seconds on an idle machine
    assert code in (0, 128 + number, -number), err
    assert "Traceback" not in err, err
    for file in Path().rglob("*.yaml"):
        yaml.safe_load(file.read_text())
    assert not list(Path().rglob(".partial*"))
