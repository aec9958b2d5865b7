"""Restarts of failed processes, and two machines: network namespaces with an address each."""

import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch
from conftest import TINY, results_of
from processes import end, kill, listening, start

STEPS = 10
TEN = [
    *TINY, "dataset.source.num_images={train: 12, val: 7, test: 7}", f"trainer.max_steps={STEPS}",
    f"trainer.val_every_n_steps={STEPS}", "trainer.checkpoint_every_n_steps=3",
    "trainer.deterministic=true",
]  # fmt: skip
TORCHRUN = ("-m", "torch.distributed.run")


def fault(name: str, **arguments: int) -> str:
    values = ", ".join(f"{key}: {int(value)}" for key, value in arguments.items())
    return f"+callback.fault={{_target_: faults.{name}, {values}}}"


def assert_same_weights(one: Path, other: Path) -> None:
    """Weights and momentum equal to the last bit, after as many steps."""
    first, second = (
        torch.load(run / "checkpoints/last.ckpt", weights_only=True) for run in (one, other)
    )
    assert first["global_step"] == second["global_step"] == STEPS
    assert first["state_dict"].keys() == second["state_dict"].keys()
    for name, tensor in first["state_dict"].items():
        assert torch.equal(tensor, second["state_dict"][name]), name
    for key, state in first["optimizer_states"][0]["state"].items():
        for name, value in state.items():
            other_value = second["optimizer_states"][0]["state"][key][name]
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(other_value)), (key, name)


def trained(run: Path, other: Path) -> None:
    """Two runs with the same outcome."""
    assert_same_weights(run, other)
    assert results_of(run)["metrics"] == results_of(other)["metrics"]


@pytest.mark.slow
def test_killed_process_lets_torchrun_start_again_in_the_same_run_folder():
    whole = start("-m", "segtrain", *TEN, "trainer.devices=2", "hydra.run.dir=outputs/whole")
    job = start(
        *TORCHRUN, "--nproc-per-node=2", "--max-restarts=1", "--rdzv-id=job",
        "--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0",
        "-m", "segtrain", *TEN, fault("Strike", step=7, number=signal.SIGKILL, rank=1),
    )  # fmt: skip
    for process in (whole, job):
        code, _, err = end(process)
        assert code == 0, err
    assert Path("struck_1").exists()
    (run,) = Path("outputs/quickstart").iterdir()
    assert run.name == "job"
    assert f"goes on     from {run.resolve()}" in (run / "run.log").read_text()
    trained(run, Path("outputs/whole"))


@pytest.mark.slow
def test_killed_process_without_torchrun():
    two = [*TEN, "trainer.devices=2"]
    whole = start("-m", "segtrain", *two, "hydra.run.dir=outputs/whole")
    own = start("-m", "segtrain", *two, "trainer.max_restarts=1", "hydra.run.dir=outputs/own",
                fault("Strike", step=7, number=signal.SIGKILL, rank=0))  # fmt: skip
    for process in (whole, own):
        code, _, err = end(process)
        assert code == 0, err
    assert Path("struck_0").exists()
    trained(Path("outputs/own"), Path("outputs/whole"))


def test_a_failing_process_ends_all_and_its_own_error_comes_first():
    failing = start("-m", "segtrain", *TEN, "trainer.devices=2", fault("Fail", step=2, rank=1))
    addresses = set()
    while failing.poll() is None:
        addresses |= listening(failing.pid)
        time.sleep(0.2)
    code, _, err = end(failing)
    assert code == 2
    assert addresses == {"0100007F"}, "other machines reach the processes of a training on this one"
    messages = [line for line in err.splitlines() if line.startswith("segtrain: ")]
    assert messages[0] == "segtrain: error: this disk of mine is broken"
    assert "Traceback" not in err


def test_a_signal_to_all_processes_of_a_job_lets_it_save():
    """As SLURM sends it: to the training and to its loader workers alike."""
    settings = [*TEN, "dataset.num_workers=2", "hydra.run.dir=outputs/run"]
    number = signal.SIGTERM
    struck = start("-m", "segtrain", *settings, fault("StrikeAll", step=4, number=number))
    code, _, err = end(struck)
    assert code == 128 + number
    assert "stopped by SIGTERM after step 5" in err


@pytest.mark.parametrize(
    ("variables", "override", "expected"),
    [
        ({"SLURM_STEP_NUM_TASKS": "8"}, "seed=1", ["8 times", "scripts/train.sbatch"]),
        ({}, "trainer=multinode", ["num_nodes=auto", "conf/trainer/multinode.yaml"]),
        ({}, "trainer=slurm", ["num_nodes=auto", "torchrun"]),
        ({}, "trainer=gpu", ["trainer.accelerator=gpu", "no GPU"]),
    ],
)
def test_what_one_process_cannot_do(segtrain, monkeypatch, variables, override, expected):
    if torch.cuda.is_available():
        pytest.skip("about a machine without a GPU")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    tiny = [o for o in TINY if "accelerator" not in o] if "=gpu" in override else TINY
    code, _, err = segtrain(*tiny, override)
    assert code == 2
    assert all(part in err for part in expected), err


WORKER = {
    "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1",
    "GROUP_WORLD_SIZE": "1", "TORCHELASTIC_MAX_RESTARTS": "3", "TORCHELASTIC_RUN_ID": "job",
    "TORCHELASTIC_RESTART_COUNT": "0", "TORCHELASTIC_USE_AGENT_STORE": "True",
}  # fmt: skip


def test_the_same_job_goes_on_and_another_is_refused(segtrain, monkeypatch):
    """Also days later, since its id names the run folder."""
    for name, value in WORKER.items():
        monkeypatch.setenv(name, value)
    assert segtrain(*TINY)[0] == 0
    run = Path("outputs/quickstart/job")
    code, out, _ = segtrain(*TINY)
    assert code == 0
    assert f"goes on     from {run.resolve()}" in out
    code, _, err = segtrain(*TINY, "optimizer.lr=0.5")
    assert code == 2
    assert "other settings of optimizer;" in err
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    code, _, err = segtrain(*TINY)
    assert code == 2
    assert "--rdzv-id" in err
    code, _, err = segtrain("-m", *TINY, "seed=1,2")
    assert code == 2
    assert "a sweep starts processes itself" in err
    assert list(Path("outputs").rglob("config.yaml")) == [run / "config.yaml"]


class Hosts:
    """Two network namespaces, joined by a cable."""

    ADDRESSES = ("10.77.0.1", "10.77.0.2")

    def __init__(self) -> None:
        self.names = [f"segtrain-{os.getpid()}-{letter}" for letter in "ab"]
        self.cards = [f"seg{os.getpid()}{letter}" for letter in "ab"]
        self.variables = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
        self.processes: list[subprocess.Popen] = []

    def build(self) -> None:
        for name in self.names:
            ip("netns", "add", name)
        ip("link", "add", self.cards[0], "type", "veth", "peer", "name", self.cards[1])
        for name, card, address in zip(self.names, self.cards, self.ADDRESSES, strict=True):
            ip("link", "set", card, "netns", name)
            ip("-n", name, "address", "add", f"{address}/24", "dev", card)
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", name, "link", "set", card, "up")

    def cable(self, state: str) -> None:
        ip("-n", self.names[1], "link", "set", self.cards[1], state)

    def torchrun(self, host: int, *arguments: str, restarts: int = 2) -> subprocess.Popen:
        """Two of the four processes, with `segtrain` and these arguments."""
        command = (
            *TORCHRUN, "--nnodes=2", "--nproc-per-node=2", f"--max-restarts={restarts}",
            "--rdzv-id=job", "--rdzv-backend=c10d", f"--rdzv-endpoint={self.ADDRESSES[0]}:29400",
            f"--rdzv-conf=is_host={'false' if host else 'true'},keep_alive_interval=1",
            f"--local-addr={self.ADDRESSES[host]}", "-m", "segtrain", *arguments,
        )  # fmt: skip
        process = start(
            *command, before=("ip", "netns", "exec", self.names[host]),
            GLOO_SOCKET_IFNAME=self.cards[host], **self.variables,
        )  # fmt: skip
        self.processes.append(process)
        return process

    def both(self, *arguments: str, restarts: int = 2) -> list[tuple[int, str, str]]:
        begun = [self.torchrun(host, *arguments, restarts=restarts) for host in (0, 1)]
        return [end(process) for process in begun]

    def clear(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                kill(process)
        for name in self.names:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@pytest.fixture
def hosts():
    if os.geteuid() or not shutil.which("ip"):
        pytest.skip("network namespaces need root and the command ip")
    made = Hosts()
    try:
        try:
            made.build()
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no network namespaces here: {error.stderr.decode()}")
        yield made
    finally:
        made.clear()


def one_host(folder: str) -> Path:
    """The same training in four processes of this machine."""
    four = ["--standalone", "--nproc-per-node=4", "-m", "segtrain"]
    code, _, err = end(start(*TORCHRUN, *four, *TEN, f"hydra.run.dir={folder}"))
    assert code == 0, err
    return Path(folder)


@pytest.mark.slow
def test_two_hosts_train_and_evaluate_as_one(hosts):
    for code, _, err in hosts.both(*TEN):
        assert code == 0, err
    run = Path("outputs/quickstart/job")
    assert results_of(run)["devices"] == 4
    trained(run, one_host("outputs/one"))
    for code, _, err in hosts.both(
        "evaluate", f"run={run}", "hydra.run.dir=outputs/two", "trainer.accelerator=cpu"
    ):
        assert code == 0, err
    single = ["evaluate", f"run={run}", "hydra.run.dir=outputs/single", "trainer.accelerator=cpu"]
    code, _, err = end(start("-m", "segtrain", *single))
    assert code == 0, err
    matrices = [Path("outputs", name, "confusion.csv").read_text() for name in ("two", "single")]
    assert matrices[0] == matrices[1]
    assert re.search(r"[1-9]", matrices[0])


@pytest.mark.slow
def test_a_host_that_is_cut_off_and_comes_back(hosts):
    """Cable out, its processes dead, cable in, torchrun started again there."""
    settings = [*TEN, fault("Hang", step=7, rank=3)]
    first, second = (hosts.torchrun(host, *settings) for host in (0, 1))
    deadline = time.monotonic() + 200
    while not Path("hangs").exists():
        assert time.monotonic() < deadline
        assert first.poll() is None
        assert second.poll() is None
        time.sleep(0.2)
    hosts.cable("down")
    kill(second)
    time.sleep(3)
    hosts.cable("up")
    second = hosts.torchrun(1, *settings)
    for process in (first, second):
        code, _, err = end(process)
        assert code == 0, err
    run = Path("outputs/quickstart/job")
    assert "goes on" in (run / "run.log").read_text()
    trained(run, one_host("outputs/one"))


@pytest.mark.slow
def test_a_failure_on_one_host_ends_both(hosts):
    """Before any process has left for the training, where only the connection can tell."""
    began = time.monotonic()
    here, there = hosts.both(*TEN, "trainer.max_steps=none", restarts=0)
    assert time.monotonic() - began < 90
    assert here[0] == 1
    assert there[0] == 1
    assert "trainer.max_steps=none: expected a whole number" in here[2]


@pytest.mark.slow
def test_restarts_that_could_not_work_are_refused(hosts):
    """Several machines whose torchrun would send restarted processes to old addresses."""
    hosts.variables["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "0"
    here, _ = hosts.both(*TEN, restarts=1)
    assert here[0] == 1
    assert "TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 before torchrun" in here[2]
