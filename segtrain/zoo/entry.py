"""What is known of a published checkpoint, and what its tensors' names tell."""

from dataclasses import dataclass
from typing import NamedTuple


class Protocol(NamedTuple):
    """One way in which a zoo tested a checkpoint, and the figures that it published for it."""

    inference: tuple[str, ...]  # overrides of `evaluate`, such as inference=sliding
    published: dict[str, float]  # percent, by the names of the metrics in results.json


@dataclass(frozen=True)
class Entry:
    """A row of a zoo: a file somewhere, the network that it fits, and how it was tested.

    Attributes:
        zoo: the zoo's short name.
        name: within the zoo; of the hub, that of the repository with its owner's.
        system: the row of the results table that it belongs to, such as PSPNet.
        address: of the file.
        sha256: of the file, or its first digits; None where the zoo says none.
        size: of the file, in bytes; None where it is not known.
        licence: of the weights.
        architecture: overrides that make the network, beginning with `architecture=`.
        dataset: option of conf/dataset whose classes the network gives, in that order.
        classes: names of the classes in the file's order, where that is another.
        split: that the figures were measured on.
        protocols: by name; the first is the zoo's usual one.
        note: what differs from the paper, in a sentence; None for nothing.
        epsilon: of the file's batch norms, where it is not that of the network here.
        sha1: of the file, where the zoo says no sha256; of what is inside, where it is an archive.
        by_hand: whether `address` is a page on which the user has to look for the file.
    """

    zoo: str
    name: str
    system: str
    address: str
    sha256: str | None
    size: int | None
    licence: str
    architecture: tuple[str, ...]
    dataset: str
    classes: tuple[str, ...] | None
    split: str
    protocols: dict[str, Protocol]
    note: str | None
    epsilon: float | None = None
    sha1: str | None = None
    by_hand: bool = False

    @property
    def weights(self) -> str:
        """What `weights=` takes for it: `<zoo>/<name>`, or `hf:<owner>/<name>`."""
        return f"hf:{self.name}" if self.zoo == "hf" else f"{self.zoo}/{self.name}"


class Recognised(NamedTuple):
    """What the names and shapes of a state dict tell of a file that nobody named."""

    system: str  # with the backbone, such as "PSPNet ResNet-101"
    architecture: tuple[str, ...]  # overrides, as in `Entry`
    num_classes: int
