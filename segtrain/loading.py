"""`segtrain.load`: a predictor from the files of a trained network."""

import os
from collections.abc import Sequence
from pathlib import Path

import yaml

from segtrain.architecture.weights import read_state_dict
from segtrain.assembly import make, rebuild
from segtrain.configuration.composing import changed, compose_config
from segtrain.configuration.folder import conf_dir
from segtrain.configuration.schema import Use
from segtrain.configuration.validation import validate
from segtrain.named_runs import find_run
from segtrain.predictor import Predictor, Settings
from segtrain.published.network import read_published
from segtrain.trained import NotOwnError, Trained, read_trained
from segtrain.values import Node
from segtrain.zoo.catalogue import is_published, row_of_file
from segtrain.zoo.folder import folder_of
from segtrain.zoo.recognition import recognise


def load(
    source: str | os.PathLike[str],
    *,
    inference: str | None = None,
    overrides: Sequence[str] = (),
    device: str = "auto",
    precision: str = "32-true",
    min_score: float = 0.5,
    max_pixels: int = 4_000_000,
    short_side: int | None = None,
    weights_file: str | Path | None = None,
    trust_code: bool = False,
) -> Predictor:
    """A trained network, from its files alone: no data set, and nothing is fetched unasked.

    Args:
        source: a run, its folder (its best checkpoint, else the last) or its name (`latest`,
            `leaves`, see `find_run`), a checkpoint, an exported folder, a published network as
            `<zoo>/<name>` or `hf:<owner>/<name>`, whose weights are fetched, or a file or folder
            of another project.
        inference: another protocol of `conf/inference`, such as `multiscale`.
        overrides: values of the protocol, such as `inference.flip=true`; where a protocol is chosen
            also choices inside it, such as `inference/window=sliding`.
        device: see `Settings`, as for the four that follow.
        precision: see there.
        min_score: see there.
        max_pixels: see there.
        short_side: see there.
        weights_file: a zoo's file where it lies on the disk already; of the hub's, the folder.
        trust_code: whether the file may name classes that are not part of this package.

    Raises:
        UserError: the source, a name or a key does not exist, a value cannot be, or what the file
            holds does not fit.
    """
    if weights_file is None and not is_published(os.fspath(source)):
        source = find_run(os.fspath(source))
    trained = find_trained(os.fspath(source), weights_file, trust_code)
    node = None
    if inference is not None:
        node = compose_config([f"inference={inference}", *overrides])["inference"]
    elif overrides:
        node = changed(trained.config["inference"], overrides, "inference")
    settings = Settings(device, precision, min_score, max_pixels, short_side)
    validate(Use, settings._asdict())
    return make_predictor(trained, node, settings)


def find_trained(source: str, weights_file: str | Path | None, trust_code: bool) -> Trained:
    """What a source holds; see `load`.

    Raises:
        UserError: there is nothing of that kind, it cannot be fetched, or it names classes that are
            not part of this package.
    """
    if is_published(source) or weights_file is not None:
        return read_published(source, weights_file, trust_code=trust_code).trained
    try:
        return read_trained(Path(source), trust_code)
    except NotOwnError:
        if folder_of(source) is not None:
            return read_published(source).trained
        if Path(source).is_dir():  # a run, whose checkpoint is damaged
            raise
        if row_of_file(source) is None and recognise(read_state_dict(source)) is None:
            raise
        return read_published(source).trained


def make_predictor(trained: Trained, inference: Node | None, settings: Settings) -> Predictor:
    """The predictor of a trained network; `inference` is another protocol's node, or None.

    Raises:
        UserError: what the file holds does not fit together, or a setting cannot be had.
    """
    model, protocol, labels = rebuild(trained, inference)
    # A whole configuration would have all imported that a training needs.
    file = conf_dir() / "inference" / "window" / "sliding.yaml"
    window = make(yaml.safe_load(file.read_text()))
    return Predictor(model, protocol, labels, trained.config, settings, window)
