"""Every command as a Hydra application over conf/."""

import atexit
import contextlib
import gc
import importlib
import os
import re
import sys
from itertools import count, islice
from pathlib import Path
from shlex import quote
from types import ModuleType
from typing import TYPE_CHECKING, Any

import yaml

from segtrain.cli import collect, launch, published
from segtrain.cli.logs import configure_logging, to_console
from segtrain.cli.own_experiment import with_own_experiments
from segtrain.cli.paths import with_literal_paths
from segtrain.cli.required import require
from segtrain.cli.resume import LAST, resume, trusted
from segtrain.configuration.checking import checked
from segtrain.configuration.folder import conf_dir, options
from segtrain.errors import PRUNED, UserError
from segtrain.lifetime import end_children, ending_stopped_workers
from segtrain.writing import naming, write_text

if TYPE_CHECKING:
    from omegaconf import DictConfig

MULTIRUN = ("-m", "--multirun")


def run(command: str, overrides: list[str]) -> int:
    """Composes the configuration and runs the command.

    Under torchrun only rank zero composes; the others receive its result, so that all processes
    run the same configuration in the same run folder.
    """
    if command in ("chain", "sweep", "tensorboard"):  # no Hydra application
        return imported(command).run(overrides)
    if launch.is_worker():
        if is_sweep(overrides):
            raise UserError("a sweep starts processes itself: no torchrun, but "
                            "trainer.devices=<number>")  # fmt: skip
        launch.connect()
        if launch.rank() > 0:
            return execute(*launch.receive())
    if not (is_sweep(overrides) or any(override[0] == "-" for override in overrides)):
        say_starting(command)
    resumed = [override for override in overrides if override.startswith("resume=")]
    if command == "train" and resumed and resumed[0] not in ("resume=", "resume=null"):
        config, run_dir = resume(resumed[0].removeprefix("resume="), overrides)
        return 0 if config is None else start("train", config, run_dir)
    return compose_and_run(command, overrides)


def is_sweep(overrides: list[str]) -> bool:
    """Whether the command line starts several runs."""
    return any(o in MULTIRUN or o.startswith("sweep=") for o in overrides)


def say_starting(command: str) -> None:
    """Says something to whoever waits before PyTorch is loaded, many seconds from a slow disk."""
    if "torch" not in sys.modules and sys.stderr.isatty():
        print(f"segtrain {command}: starting ...", file=sys.stderr, flush=True)


def compose_and_run(command: str, overrides: list[str]) -> int:
    """Runs the command once, or once per job of a sweep, or shows its configuration."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # composition errors come out of Hydra as exceptions then
    if is_sweep(overrides):
        gc.enable()  # its own process runs long, and may import no command
        overrides = ["-m", *(o for o in overrides if o not in MULTIRUN)]
    if command in collect.COMMANDS:
        overrides = collect.collected(command, overrides)
    if command in published.COMMANDS:
        overrides = published.with_protocol(command, overrides)
    overrides = [without_null(override) for override in overrides]
    given = [o for o in overrides if o.startswith("hydra.run.dir=") and "${now:" not in o]
    is_named = bool(given) or launch.is_worker()
    if command == "train":
        # What is composed is the user's own, whatever code it names.
        overrides = name_run(with_own_experiments(trusted(overrides)[1]))
    overrides = with_literal_paths(overrides, is_sweep(overrides))
    if any(override[0] == "-" for override in overrides):
        return sweep_or_show(command, flags_first(overrides))
    config, run_dir = compose_one(command, overrides)
    return start(command, checked(command, config), run_dir, is_named)


def compose_one(command: str, overrides: list[str]) -> tuple[dict, Path]:
    """The resolved configuration of a single run, and its folder, which is not made yet."""
    from hydra import compose, initialize_config_dir
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import open_dict

    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose(command, overrides, return_hydra_config=True)
        run_dir = Path(cfg.hydra.run.dir).absolute()
        with open_dict(cfg):
            cfg.hydra.runtime.output_dir = str(run_dir)
            HydraConfig.instance().set_config(cfg)  # values may refer to it
            del cfg["hydra"]
        try:
            return resolved(command, cfg), run_dir
        finally:
            HydraConfig.instance().cfg = None


def resolved(command: str, cfg: "DictConfig") -> dict:
    """A composed configuration as plain data, with the name of the experiment."""
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    config = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    config.pop("sweep", None)  # where and how jobs are run is no part of what they are
    if command == "train":
        choices = HydraConfig.get().runtime.choices
        unnamed = f"{choices.get('architecture')}_{choices.get('dataset')}"
        config["experiment"] = choices.get("experiment") or unnamed
        if config["automatic"] is True:
            tasks = HydraConfig.get().overrides.task
            given = [task.partition("=")[0].lstrip("+~") for task in tasks]
            config["automatic"] = given + keys_of_own_experiment(config["experiment"])
    return config


def keys_of_own_experiment(name: str) -> list[str]:
    """Keys, with dots, that the user's own experiment sets; none of one of this package."""
    from hydra.core.hydra_config import HydraConfig

    keys: list[str] = []

    def collect_keys(node: dict, start: str) -> None:
        for key, value in node.items():
            if isinstance(value, dict) and value:
                collect_keys(value, f"{start}{key}.")
            elif f"{start}{key}" != "defaults":
                keys.append(f"{start}{key}")

    for source in HydraConfig.get().runtime.config_sources:
        folder = Path(source.path)
        file = folder / "experiment" / f"{name}.yaml"
        if source.schema == "file" and folder != conf_dir() and file.is_file():
            content = yaml.safe_load(file.read_text())
            collect_keys(content if isinstance(content, dict) else {}, "")
    return keys


def sweep_or_show(command: str, arguments: list[str]) -> int:
    """What Hydra's own flags ask for: the jobs of a sweep (-m), or the configuration (--cfg)."""
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    from segtrain.cli import sweep_job
    from segtrain.sweep.ledger import INTERRUPTED

    codes: list[int] = []

    def job(cfg: "DictConfig") -> None:  # it raises nothing, or Hydra would end the sweep
        settings = HydraConfig.get()
        launcher = OmegaConf.to_container(settings.launcher, resolve=True)
        jobs = OmegaConf.select(cfg, "sweep.jobs", default=1)
        run_dir = Path(settings.runtime.output_dir)
        code = sweep_job.run(command, lambda: resolved(command, cfg), run_dir, launcher, jobs)
        codes.append(0 if code == PRUNED else code)
        if code >= INTERRUPTED and sweep_job.is_here(launcher):
            raise SystemExit(code)

    sys.argv = ["segtrain", *arguments]  # which Hydra reads
    hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=command)(job)()
    return max(codes, default=0)


def without_null(override: str) -> str:
    """`group=null` as Hydra has it: the empty list of choices."""
    group, _, value = override.partition("=")
    return f"{group}=[]" if value == "null" and options(group) else override


def name_run(overrides: list[str]) -> list[str]:
    """The overrides, with the quickstart where nothing else is chosen, and named run folders.

    Without an experiment `quickstart` is meant, unless the data set or architecture is chosen by
    hand: then nothing of the quickstart shall get in, and the run is called
    `<architecture>_<dataset>`.
    """
    chosen = dict(override.partition("=")[::2] for override in overrides)
    added = []
    if "experiment" not in chosen and not chosen.keys() & {"dataset", "architecture"}:
        added.append("experiment=quickstart")
        chosen["experiment"] = "quickstart"
    name = chosen.get("experiment", "").strip("[]") or "_".join(
        chosen.get(group, default)
        for group, default in (("architecture", "deeplabv3"), ("dataset", "shapes"))
    )
    name = re.sub(r"[^\w-]+", "+", name)  # several names of a sweep
    return [*added, *run_folders(name), *overrides]


def run_folders(name: str) -> list[str]:
    """The overrides that put runs, and sweeps, into folders after a name and the time."""
    time = "${now:%Y-%m-%d_%H-%M-%S}"
    return [
        f"hydra.run.dir=outputs/{name}/{job_name() or time}",
        f"hydra.sweep.dir=outputs/multirun/{name}/{time}",
    ]


def job_name() -> str | None:
    """What a restarted torchrun job finds its run folder by, instead of by the time; or None.

    Raises:
        UserError: the job has no id.
    """
    job = launch.restartable_job()
    if job == "none":  # torchrun's default
        raise UserError(
            "torchrun --max-restarts finds the run folder again by the job's id: add "
            "--rdzv-id=<a name of this job>, or --standalone on one machine"
        )
    return job and re.sub(r"[^\w-]+", "+", job)


def claim(run_dir: Path) -> Path:
    """The folder, or one of that name with a number behind, that no other run has.

    Two runs that start in the same second would otherwise write over each other. The one that
    makes `config.yaml` has the folder.
    """
    for number in count(1):
        folder = run_dir if number == 1 else run_dir.with_name(f"{run_dir.name}_{number}")
        folder.mkdir(parents=True, exist_ok=True)
        try:
            (folder / "config.yaml").touch(exist_ok=False)
        except FileExistsError:
            continue
        return folder
    raise AssertionError("endless")


def flags_first(arguments: list[str]) -> list[str]:
    """Hydra's flags (-m, --cfg job) before the overrides, since its parser takes no other order."""
    overrides = [a for a in arguments if a[0] != "-" and ("=" in a or a[0] == "~")]
    return [a for a in arguments if a not in overrides] + overrides


def start(command: str, config: dict[str, Any], run_dir: Path, is_named: bool = True) -> int:
    """Writes the configuration and runs the command, in more processes where they are asked for.

    Args:
        command: its name.
        config: resolved and checked.
        run_dir: of the run.
        is_named: whether the folder's name was given; one after the time may be another run's too.

    Raises:
        UserError: what the user can mend. Nothing is left of a folder named after the time in which
            nothing was done yet.
    """
    require(command, config)
    settings = config.get("trainer")
    if settings:
        launch.count_processes(settings)
    if launch.restartable_job() and command == "train" and not config["resume"]:
        go_on(config, run_dir)
    if command == "train" and config.get("automatic"):  # not in the configuration of older runs
        from segtrain.automatic.choosing import choose

        with to_console(sys.stdout):
            made = choose(config, config["automatic"])
        config["automatic"], config["chosen"] = False, {one.key: one.reason for one in made}
        config = checked(command, config)
    if is_named:
        run_dir.mkdir(parents=True, exist_ok=True)
    else:
        run_dir = claim(run_dir)
    write_text(run_dir / "config.yaml", yaml.safe_dump(config, sort_keys=False))
    if launch.is_worker():
        launch.send(command, config, run_dir)
    elif settings and (settings["devices"] > 1 or settings.get("max_restarts")):
        return launch.spawn(command, run_dir, settings["devices"], settings.get("max_restarts", 0))
    try:
        return execute(command, config, run_dir)
    except UserError:
        if not is_named:
            discard_unused(run_dir)
        raise


def discard_unused(run_dir: Path) -> None:
    """Removes a run folder that holds nothing but its configuration and log, and what is empty."""
    if not {file.name for file in run_dir.iterdir()} <= {"config.yaml", "run.log"}:
        return
    for file in run_dir.iterdir():
        file.unlink()
    with contextlib.suppress(OSError):  # the first that other runs are in
        for folder in (run_dir, *islice(run_dir.parents, 2)):  # outputs/<command>/<date_time>
            folder.rmdir()


def go_on(config: dict[str, Any], run_dir: Path) -> None:
    """Resumes what the run folder holds already, where torchrun started this job before.

    Raises:
        UserError: it holds another job's run.
    """
    if not (run_dir / LAST).is_file():
        return
    stored = yaml.safe_load((run_dir / "config.yaml").read_text())
    own = yaml.safe_load(yaml.safe_dump(config))
    for changed in (stored, own):  # by resuming, or by the number of machines
        changed["resume"] = changed["trainer"]["devices"] = changed["trainer"]["num_nodes"] = None
    groups = [key for key in own.keys() | stored.keys() if own.get(key) != stored.get(key)]
    if groups:
        raise UserError(
            f"{run_dir} holds a run with other settings of {', '.join(sorted(groups))}; give "
            "torchrun another --rdzv-id, or go on with those: "
            f"segtrain {quote(f'resume={run_dir}')}"
        )
    config["resume"] = str(run_dir)


def execute(command: str, config: dict[str, Any], run_dir: Path) -> int:
    """Runs the command in this process."""
    module = imported(command)
    configure_logging(run_dir / "run.log")
    with ending_stopped_workers(), naming(run_dir):  # of writers that do not say which file
        module.run(config, run_dir)
    return 0


def imported(command: str) -> ModuleType:
    """The command's module; from here on garbage is collected, but not among what it imported."""
    module = importlib.import_module(f"segtrain.cli.{command}")
    atexit.register(end_children)
    if not gc.isenabled():  # see segtrain.__main__
        gc.freeze()
        atexit.register(gc.unfreeze)  # Triton's bindings complain of what is left at the end
        gc.enable()
    return module
