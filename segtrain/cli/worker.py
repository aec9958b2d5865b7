"""One process of several on one machine: `python -m segtrain.cli.worker COMMAND RUN_FOLDER`."""

import sys
from pathlib import Path

import yaml

from segtrain.cli.app import execute
from segtrain.cli.main import report


def main(command: str, run_dir: Path) -> int:
    """Runs the command with the configuration that lies in the run folder."""
    try:
        return execute(command, yaml.safe_load((run_dir / "config.yaml").read_text()), run_dir)
    except BaseException as error:
        return report(error)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
