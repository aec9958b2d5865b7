"""Search with Optuna: what to try next, and what the storage is told of it."""

import time
import warnings
from pathlib import Path

from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from hydra.utils import instantiate

from segtrain.errors import UserError
from segtrain.sweep.ledger import TRIAL, Job, read_record
from segtrain.sweep.sweeping import Sweeping
from segtrain.writing import write_json

try:
    import optuna
except ImportError:
    raise UserError(
        "sweep=optuna needs Optuna: pip install 'segtrain[sweep]' (or pip install 'optuna>=4')"
    ) from None

FOLDER, SPACE = "folder", "space"  # attributes of a trial and of a study
ENDED = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)
RUNNING = optuna.trial.TrialState.RUNNING
OUTCOMES = {
    "done": optuna.trial.TrialState.FAIL,  # without a validation
    "failed": optuna.trial.TrialState.FAIL,
    "pruned": optuna.trial.TrialState.PRUNED,
}
ATTEMPTS = 5  # at opening the storage


def run_search(run: Sweeping, overrides: list[Override], settings: dict) -> None:
    """Tries `trials` points of the space; of a resumed search, first those that were cut short.

    Args:
        run: the sweep.
        overrides: of the command line; those with several values span the space.
        settings: the `sweep` entry of the configuration, see conf/sweep/optuna.yaml.

    Raises:
        UserError: nothing is searched, or the study in the storage is one of another space.
    """
    space = {o.get_key_element(): distribution(o) for o in overrides if o.is_sweep_override()}
    if not space:
        raise UserError("sweep=optuna: nothing to search; give keys with several values, such as "
                        "'optimizer.lr=tag(log,interval(1e-3,1e-1))' seed=1,2")  # fmt: skip
    fixed = [o.input_line for o in overrides if not o.is_sweep_override()]
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    url = settings["storage"] or f"sqlite:///{run.folder.absolute() / 'optuna.db'}"
    study = open_study(url, settings, space)
    for trial in own_running(study, run.folder):
        settle(study, trial, run)  # ended, but the sweep was killed before it could say so
    again = [complete(optuna.Trial(study, trial._trial_id), space)
             for trial in own_running(study, run.folder)]  # fmt: skip
    attempts = settings["trials"]
    while True:
        trials, again = again[: run.jobs], again[run.jobs :]
        while len(trials) < run.jobs and attempts and wanted(study, settings["trials"]):
            trials.append(ask(study, settings, space, run.folder))
            attempts -= 1
        if not trials:
            return
        jobs = []
        for trial in trials:
            values = [f"{key}={value}" for key, value in trial.params.items()]
            jobs.append(Job(trial.number, [*fixed, *values]))
            run.add(jobs[-1])
            folder = run.ledger.job_folder(trial.number)
            content = {"storage": url, "study": settings["study"], "trial": trial._trial_id,
                       "pruner": settings["pruner"]}  # fmt: skip
            write_json(folder / TRIAL, content)
        run.launch(jobs)
        for trial in trials:
            settle(study, trial, run)


def distribution(override: Override) -> optuna.distributions.BaseDistribution:
    """What Optuna calls the values of a sweep in Hydra's syntax.

    Lists of values are categories, as text. `range` leaves out its end, as in Python. `interval` is
    of real numbers, `int(interval(1,9))` of whole ones; `tag(log,...)` goes by magnitude.
    """
    found = override.value()
    if override.is_choice_sweep():
        return optuna.distributions.CategoricalDistribution(list(override.sweep_string_iterator()))
    log = "log" in found.tags
    if isinstance(found, RangeSweep):
        values = [float(v) if isinstance(found.step, float) else v for v in found.range()]
        low, high, step = min(values), max(values), abs(found.step)
    elif isinstance(found, IntervalSweep):
        low, high, step = found.start, found.end, None
    if all(isinstance(value, int) for value in (low, high, step or 1)):
        return optuna.distributions.IntDistribution(low, high, log, 1 if log else step or 1)
    return optuna.distributions.FloatDistribution(low, high, log, None if log else step)


def open_study(url: str, settings: dict, space: dict) -> optuna.Study:
    """The study in the storage, made where there is none.

    Raises:
        UserError: the storage cannot be used, or the study there has another space.
    """
    study = None
    for attempt in range(ATTEMPTS):
        try:
            study = optuna.create_study(
                storage=open_storage(url), study_name=settings["study"], direction="maximize",
                load_if_exists=True,
            )  # fmt: skip
            break
        except Exception as error:  # SQLAlchemy's, of the database's driver, or of its absence
            if attempt == ATTEMPTS - 1:
                reason = str(error).partition("\n")[0]
                raise UserError(f"sweep.storage={url} cannot be used: {reason}") from error
            time.sleep(1)  # another process may be making its tables
    described = {key: repr(value) for key, value in sorted(space.items())}
    known = study.user_attrs.get(SPACE)
    if known not in (None, described):
        raise UserError(f"study '{settings['study']}' in {url} searches another space: {known}, "
                        f"not {described}; give another name: sweep.study=<name>")  # fmt: skip
    study.set_user_attr(SPACE, described)
    return study


def open_storage(url: str) -> optuna.storages.RDBStorage:
    """The storage, whose SQLite waits while another process writes."""
    arguments = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {}
    return optuna.storages.RDBStorage(url, engine_kwargs=arguments)


def own_running(study: optuna.Study, folder: Path) -> list:
    """Trials that this sweep began and that have not ended; those of others share the storage."""
    running = study.get_trials(deepcopy=False, states=(RUNNING,))
    return [t for t in running if t.user_attrs.get(FOLDER) == str(folder.absolute())]


def wanted(study: optuna.Study, total: int) -> bool:
    """Whether the study needs one more trial; those that failed do not count."""
    found = study.get_trials(deepcopy=False)
    return sum(trial.state in (*ENDED, RUNNING) for trial in found) < total


def ask(study: optuna.Study, settings: dict, space: dict, folder: Path) -> optuna.Trial:
    """A new trial. It draws from the seed and its number, whichever process asks, and when."""
    trial = study.ask()
    trial.set_user_attr(FOLDER, str(folder.absolute()))
    study.sampler = instantiate(settings["sampler"], seed=settings["seed"] + 1000 * trial.number)
    return complete(trial, space)


def complete(trial: optuna.Trial, space: dict) -> optuna.Trial:
    """The trial with a value for every key of the space; those it has stay."""
    for key, values in space.items():
        if isinstance(values, optuna.distributions.CategoricalDistribution):
            trial.suggest_categorical(key, values.choices)
        elif isinstance(values, optuna.distributions.IntDistribution):
            trial.suggest_int(key, values.low, values.high, step=values.step, log=values.log)
        else:
            trial.suggest_float(key, values.low, values.high, step=values.step, log=values.log)
    return trial


def settle(study: optuna.Study, trial: optuna.Trial, run: Sweeping) -> None:
    """Tells the storage how a trial's job ended; a job that is to go on stays running there."""
    record = read_record(run.ledger.job_folder(trial.number))
    state = record["state"]
    if state == "done" and record["validation"] is not None:
        study.tell(trial.number, record["validation"], skip_if_finished=True)
    elif state in OUTCOMES:
        study.tell(trial.number, state=OUTCOMES[state], skip_if_finished=True)
