"""One process of several on one machine: `python -m segtrain.cli.worker COMMAND RUN_FOLDER`."""

import gc
import sys
from pathlib import Path

import yaml

from segtrain.cli import launch
from segtrain.cli.app import execute
from segtrain.cli.main import report
from segtrain.cli.resume import LAST


def main(command: str, run_dir: Path) -> int:
    """Runs the command with the configuration that lies in the run folder.

    A process that replaces one that failed goes on from the last checkpoint.
    """
    try:
        launch.connect()
        config = yaml.safe_load((run_dir / "config.yaml").read_text())
        if launch.was_restarted() and (run_dir / LAST).is_file():
            config["resume"] = str(run_dir)
        return execute(command, config, run_dir)
    except BaseException as error:
        return report(error)


if __name__ == "__main__":
    gc.disable()  # as in segtrain.__main__
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
