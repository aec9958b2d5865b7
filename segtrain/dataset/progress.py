"""A progress bar on terminals, silence elsewhere."""

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.markup import escape
from rich.progress import track as rich_track

from segtrain.text import visible

Item = TypeVar("Item")


def track(items: Iterable[Item], total: int, what: str) -> Iterator[Item]:
    """The items, with a bar that counts them where the output is a terminal."""
    if sys.stdout.isatty():
        yield from rich_track(items, description=escape(visible(what)), total=total)
    else:
        yield from items
