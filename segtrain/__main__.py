"""`python -m segtrain`."""

import sys

from segtrain.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
