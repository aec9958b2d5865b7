"""Each logger in a training of two steps, read back; all offline."""

import csv
import json
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from conftest import TINY, composed, only_run

from segtrain import loggers
from segtrain.configuration.folder import options
from segtrain.errors import UserError
from segtrain.loggers import build_loggers, file_name, wandb_mode

STEPS = [
    *TINY,
    "trainer.max_steps=2",
    "trainer.val_every_n_steps=2",
    "callback.images.num_images=1",
]


@pytest.fixture(autouse=True)
def nobody_logged_in(monkeypatch, tmp_path):
    for variable in ("WANDB_API_KEY", "WANDB_MODE", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


def packets(file: Path) -> Iterator[bytes]:
    """The records of W&B's file: a log of LevelDB, of blocks of 32 KiB, behind 7 bytes."""
    content, place, whole = file.read_bytes(), 7, b""
    while place + 7 <= len(content):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        size, kind = struct.unpack("<HB", content[place + 4 : place + 7])
        whole += content[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # all of a record, or its end
            yield whole
            whole = b""


def wandb_records(run_dir: Path) -> dict[str, list]:
    """What an offline run has written, by kind."""
    from wandb.proto.wandb_internal_pb2 import Record

    found: dict[str, list] = {}
    for file in sorted(run_dir.glob("wandb/offline-run-*/*.wandb")):
        for packet in packets(file):
            record = Record.FromString(packet)
            kind = record.WhichOneof("record_type")
            found.setdefault(kind, []).append(getattr(record, kind))
    return found


def test_wandb_gets_figures_pictures_and_settings_and_a_resumed_run_goes_on(segtrain):
    code, _, err = segtrain(*STEPS, "logger=[csv,wandb]")
    assert code == 0, err
    run_dir = only_run()
    written = wandb_records(run_dir)
    keys = {item.nested_key[0] if item.nested_key else item.key
            for history in written["history"] for item in history.item}  # fmt: skip
    assert {"train/loss", "val/miou", "test/miou", "val/confusion", "test/per_class"} <= keys
    (run,) = written["run"]
    assert run.display_name == f"quickstart/{run_dir.name}"
    settings = {item.key for config in written["config"] for item in config.update}
    assert {"checkpoint", "optimizer.lr"} <= settings
    assert list(run_dir.glob("wandb/offline-run-*/files/media/images/val/confusion*.png"))
    code, _, err = segtrain("train", f"resume={run_dir}", "trainer.max_steps=4")
    assert code == 0, err
    assert {again.run_id for again in wandb_records(run_dir)["run"]} == {run.run_id}
    with (run_dir / "csv" / "metrics.csv").open() as file:
        assert any(row["test/miou"] for row in csv.DictReader(file))


def test_mlflow_gets_figures_pictures_and_settings_and_a_resumed_run_goes_on(segtrain):
    code, _, err = segtrain(*STEPS, "logger=mlflow")
    assert code == 0, err
    run_dir = only_run()
    code, _, err = segtrain("train", f"resume={run_dir}", "trainer.max_steps=4")
    assert code == 0, err
    from mlflow import MlflowClient

    client = MlflowClient("sqlite:///mlflow.db")
    experiment = client.get_experiment_by_name("segtrain")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.tags["mlflow.runName"] == f"quickstart/{run_dir.name}"
    assert run.data.tags["checkpoint"].endswith("best.ckpt")
    assert run.data.params["optimizer.lr"]
    steps = [point.step for point in client.get_metric_history(run.info.run_id, "val/miou")]
    assert sorted(steps) == [1, 3]  # as Lightning counts: from 0
    scores = json.loads((run_dir / "results.json").read_text())["metrics"]
    assert run.data.metrics["test/miou"] == pytest.approx(scores["miou"])
    files = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert {"config.yaml", "results.json", "val", "val_images", "test"} <= files


def test_no_logger(segtrain):
    code, _, err = segtrain(*STEPS, "logger=null")
    assert code == 0, err
    names = {path.name for path in only_run().iterdir()}
    assert not names & {"tensorboard", "csv", "wandb", "loggers.json"}


def test_a_run_of_before_with_its_one_logger_goes_on(segtrain):
    assert segtrain(*STEPS, "logger=csv")[0] == 0
    run_dir = only_run()
    stored = yaml.safe_load((run_dir / "config.yaml").read_text())
    stored["logger"] = stored["logger"]["csv"]
    (run_dir / "config.yaml").write_text(yaml.safe_dump(stored))
    code, _, err = segtrain("train", f"resume={run_dir}", "trainer.max_steps=4")
    assert code == 0, err
    assert json.loads((run_dir / "results.json").read_text())["global_step"] == 4


@pytest.mark.parametrize("name", options("logger"))
def test_a_missing_package_is_named_with_its_command(name, monkeypatch, tmp_path):
    config = composed(f"logger={name}")
    needs = loggers.PACKAGES.get(config["logger"][name]["_target_"])
    monkeypatch.setattr(loggers, "find_spec", lambda package: None)
    if needs is None:
        build_loggers(config, tmp_path)
        return
    with pytest.raises(UserError, match=f"logger={name} .*pip install {needs[0]}"):
        build_loggers(config, tmp_path)


def test_wandb_is_online_only_where_a_login_is_known(monkeypatch, tmp_path):
    assert wandb_mode(None) == "offline"
    with pytest.raises(UserError, match="WANDB_API_KEY"):
        wandb_mode("online")
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password key\n")
    assert wandb_mode(None) == "online"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert wandb_mode(None) == "disabled"
    assert wandb_mode("offline") == "offline"


def test_jobs_of_a_sweep_are_one_group(tmp_path):
    (tmp_path / "sweep.json").write_text("{}")
    (one,) = build_loggers(composed("logger=wandb"), tmp_path / "3")
    assert one._wandb_init["group"] == f"test/{tmp_path.name}"
    (alone,) = build_loggers(composed("logger=wandb"), tmp_path / "other" / "3")
    assert alone._wandb_init["group"] is None


@pytest.mark.parametrize("tag", ["val/../../x", "/etc/x", "val/a\x1b[2J", "val/..", "a//b"])
def test_pictures_stay_below_the_run(tag):
    parts = file_name(tag).split("/")
    assert all(part not in ("", ".", "..") and part.isprintable() for part in parts)
