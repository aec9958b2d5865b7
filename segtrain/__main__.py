"""`python -m segtrain`, and the command `segtrain`."""

import gc
import sys

from segtrain.cli.main import main
from segtrain.lifetime import end_at_signals, end_with_caller


def start() -> int:
    """Runs a command in a process of its own.

    What is imported stays until the end; not to look through it for garbage, again and again, makes
    a command start a second faster. `segtrain.cli.app` turns the search on when all is imported.
    """
    end_with_caller()
    end_at_signals()
    gc.disable()
    return main()


if __name__ == "__main__":
    sys.exit(start())
