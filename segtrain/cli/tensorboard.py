"""`tensorboard`: opens TensorBoard, for this machine alone, on a run, a sweep or all runs."""

import contextlib
import io
import logging
from pathlib import Path

from tensorboard.program import TensorBoard, TensorBoardServer, TensorBoardServerException

from segtrain.errors import UserError
from segtrain.named_runs import LATEST, OUTPUTS, find_run

EVENTS = "events.out.tfevents.*"


def run(overrides: list[str]) -> int:
    """Serves until it is interrupted.

    Raises:
        UserError: the folder has no event files, the port is taken, or an option is unknown.
    """
    options = {"run": "outputs", "port": "6006", "host": "localhost"}
    for override in overrides:
        key, _, value = override.partition("=")
        if key not in options:
            raise UserError(f"unknown key '{key}'; tensorboard takes run=<folder> (or run=latest), "
                            "port=<number, 0 for any> and host=<address>")  # fmt: skip
        options[key] = value
    if not options["port"].isdigit():
        raise UserError(f"port={options['port']} must be a number, 0 for any that is free")
    folder = find_folder(options["run"])
    server = start(folder, options["host"], int(options["port"]))
    print(f"TensorBoard on {folder}: {server.get_url()} (Ctrl-C ends it)", flush=True)
    server.serve_forever()
    return 0


def find_folder(run: str) -> Path:
    """The folder of a run, a sweep, or of many, or a run by its name (see `segtrain.named_runs`).

    `latest` is the run or sweep that wrote last, also one that has saved nothing yet.

    Raises:
        UserError: there is none, or nothing in it is for TensorBoard.
    """
    try:
        folder = OUTPUTS if run == LATEST else find_run(run)
    except UserError as error:
        raise UserError(f"run={error}") from None
    if not folder.is_dir():
        raise UserError(f"run={run}: {folder} is no folder; give that of a run, a sweep or many "
                        "runs (without run=: outputs, where runs are written)")  # fmt: skip
    files = list(folder.rglob(EVENTS))
    if not files:
        raise UserError(f"{folder} has no event files of TensorBoard; runs write them into "
                        "<run folder>/tensorboard unless they have logger=csv")  # fmt: skip
    if run != LATEST:
        return folder
    newest = max(files, key=lambda file: file.stat().st_mtime).parent
    found = newest.parent if newest.name == "tensorboard" else newest
    return found.parent if (found.parent / "sweep.json").is_file() else found


def start(folder: Path, host: str, port: int) -> TensorBoardServer:
    """A server that is bound to its port.

    Raises:
        UserError: it cannot be, mostly since the port is taken.
    """
    logging.getLogger("tensorboard").setLevel(logging.ERROR)
    board = TensorBoard()
    board.configure(logdir=str(folder), host=host, port=port)
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # a note on how it loads its data
            return board._make_server()  # `launch` is public, but serves from a thread and keeps it
    except TensorBoardServerException as error:
        raise UserError(f"TensorBoard cannot start: {error.msg.strip()}. port=0 takes any port "
                        "that is free") from None  # fmt: skip
