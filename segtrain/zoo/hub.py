"""Repositories of the Hugging Face hub: `hf:<owner>/<name>`, fetched by plain HTTP.

Only what is read is fetched: `config.json`, `preprocessor_config.json` and the weights. Nothing of
a repository is run.
"""

import logging
import os
import re
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from segtrain.errors import UserError
from segtrain.zoo.cache import checkpoints, locked
from segtrain.zoo.folder import (
    CONFIG,
    INDEX,
    PREPROCESSOR,
    WEIGHTS,
    require_config,
    shard_names,
    weight_files,
)

logger = logging.getLogger("segtrain")

PREFIX = "hf:"
HUB = "https://huggingface.co"
PART = r"[A-Za-z0-9][\w.-]*"
NAME = re.compile(rf"({PART})/({PART})(?:@({PART}(?:/{PART})*))?", re.ASCII)


class Repository(NamedTuple):
    """A model on the hub.

    Attributes:
        owner, name: of the repository.
        revision: branch, tag or commit.
    """

    owner: str
    name: str
    revision: str = "main"

    @property
    def weights(self) -> str:
        """What `weights=` takes for it."""
        at = "" if self.revision == "main" else f"@{self.revision}"
        return f"{PREFIX}{self.owner}/{self.name}{at}"

    @property
    def page(self) -> str:
        """Its address, on the hub that HF_ENDPOINT names."""
        return f"{hub()}/{self.owner}/{self.name}"

    @property
    def folder(self) -> Path:
        """Where its files are kept."""
        return checkpoints() / "hf" / self.owner / self.name / self.revision.replace("/", "--")

    def address(self, file: str) -> str:
        """Of one of its files."""
        return f"{self.page}/resolve/{quote(self.revision, safe='')}/{file}"


def hub() -> str:
    """The hub's address, or that of the one which HF_ENDPOINT names."""
    return os.environ.get("HF_ENDPOINT", HUB).rstrip("/")


def is_hub(weights: str) -> bool:
    """Whether `weights` names a repository of the hub, by `hf:` or as the zoo `hf`."""
    return weights.startswith((PREFIX, "hf/")) and not Path(weights).exists()


def repository_of(weights: str) -> Repository:
    """The repository that `hf:<owner>/<name>` names, also with `@<revision>`.

    Raises:
        UserError: it is no such name.
    """
    found = NAME.fullmatch(weights.removeprefix(PREFIX).removeprefix("hf/"))
    if found is None or ".." in weights:
        raise UserError(f"weights={weights}: expected hf:<owner>/<name> or hf:<owner>/<name>@"
                        "<branch, tag or commit>")  # fmt: skip
    owner, name, revision = found.groups()
    return Repository(owner, name, revision or "main")


def is_fetched(repository: Repository) -> bool:
    """Whether all that is read of a repository is on this machine."""
    folder = repository.folder
    return (folder / CONFIG).is_file() and bool(weight_files(folder))


def obtain_repository(repository: Repository) -> Path:
    """The folder with a repository's files, which are fetched where they are missing.

    Of several processes one fetches while the others wait.

    Raises:
        UserError: they cannot be fetched, or `config.json` is of no network that is known, which
            is seen before the weights are fetched.
    """
    folder = repository.folder
    if is_fetched(repository):
        return folder
    with locked(folder / "all"):
        if not is_fetched(repository):
            _fetch(repository, CONFIG)
            require_config(folder)
            _fetch_if_there(repository, PREPROCESSOR)
            _fetch_weights(repository)
    return folder


def _fetch_weights(repository: Repository) -> None:
    *others, last = WEIGHTS
    if any(_fetch_if_there(repository, name) for name in others):
        return
    if _fetch_if_there(repository, INDEX):
        for name in shard_names(repository.folder / INDEX):
            _fetch(repository, name)
    else:
        _fetch(repository, last)


def _fetch_if_there(repository: Repository, name: str) -> bool:
    from segtrain.prepare.fetch import AbsentError

    try:
        _fetch(repository, name)
    except AbsentError:
        return False
    return True


def _fetch(repository: Repository, name: str) -> None:
    """Fetches one file, or leaves the one that is there.

    Raises:
        AbsentError: the repository has no such file.
        UserError: it cannot be fetched.
    """
    from segtrain.prepare.fetch import download

    file = repository.folder / name
    if not file.is_file():
        by_hand = (
            f"give weights=<folder> with {CONFIG} and {WEIGHTS[0]} of {repository.page} (what is "
            "private, or asks to accept its licence, is fetched by hand too)"
        )
        download(repository.address(name), file, None, by_hand)
