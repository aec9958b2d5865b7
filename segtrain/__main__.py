"""`python -m segtrain`, and the command `segtrain`."""

import gc
import sys

from segtrain.cli.main import main


def start() -> int:
    """Runs a command in a process of its own.

    What is imported stays until the end; not to look through it for garbage, again and again, makes
    a command start a second faster. `segtrain.cli.app` turns the search on when all is imported.
    """
    gc.disable()
    return main()


if __name__ == "__main__":
    sys.exit(start())
