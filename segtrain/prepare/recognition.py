"""What `data=` names: one of the data sets, or annotated pictures of one's own."""

from pathlib import Path
from typing import NamedTuple

from segtrain.configuration.folder import options
from segtrain.errors import UserError


class Recognised(NamedTuple):
    """A data set that was found.

    Args:
        overrides: of the full keys that choose it.
        told: what it is, in a line for people.
    """

    overrides: list[str]
    told: str


def recognise(given: str, instances: bool) -> Recognised:
    """Tell what the value of `data=` is.

    Args:
        given: a data set's name, or a folder or file with annotations.
        instances: whether a detector wants it.

    Raises:
        UserError: it is none of what can be read.
    """
    if given in options("dataset"):
        return Recognised([f"dataset={given}"], f"the data set {given}")
    root = Path(given)
    if not instances and (root / "images").is_dir() and (root / "masks").is_dir():
        return Recognised(
            ["dataset=folder", f"dataset.source.root={given}"], "a folder of images and masks"
        )
    raise UserError(f"data={given}: neither the name of a data set nor a folder with images/ and "
                    "masks/")  # fmt: skip
