"""Text that may come from anywhere, on terminals, in logs, Markdown and HTML."""

import html
import unicodedata
from collections.abc import Sequence
from typing import Any

from rich.console import Console

# Control characters, those that turn the direction of text, and bytes that are no text.
ACTIVE = {"Cc", "Cf", "Cs", "Zl", "Zp"}
JOINERS = "\u200c\u200d"  # of scripts and emoji


def visible(text: str) -> str:
    """The text with what a terminal would act on, but for line ends and tabs, spelt out.

    A file's name may hold an escape sequence that clears the screen or writes another message.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        character
        if character in "\n\t" + JOINERS or unicodedata.category(character) not in ACTIVE
        else character.encode("unicode_escape").decode()
        for character in text
    )


def shortened(names: Sequence[str], shown: int) -> str:
    """The first of the names, and how many more there are."""
    more = f", ... {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def markdown(text: str) -> str:
    """The text as a cell or a line of Markdown shows it."""
    text = visible(text)
    for character in "\\|*_<>`":
        text = text.replace(character, f"\\{character}")
    return text.replace("\n", "<br>")


def escape(text: str) -> str:
    """The text as HTML shows it, in an attribute too."""
    return html.escape(visible(text))


def console(**settings: Any) -> Console:
    """Rich's console, to which text is text: brackets and colons in it have no meaning."""
    return Console(markup=False, emoji=False, **settings)
