"""What a training needs before it can start: its data set and initial weights."""

from pathlib import Path
from typing import NamedTuple

from segtrain.architecture.imagenet import flavour_of
from segtrain.assembly import build_data
from segtrain.configuration.composing import compose_choices
from segtrain.configuration.schema import Recipe
from segtrain.dataset.cache import cache_root, is_current
from segtrain.prepare.archives import is_there
from segtrain.prepare.once import is_readable, splits_to_verify, state_of
from segtrain.zoo.cache import checkpoints
from segtrain.zoo.catalogue import find, is_published
from segtrain.zoo.files import is_here
from segtrain.zoo.hub import is_fetched, is_hub, repository_of

HUB_FILES = ("model.safetensors", "pytorch_model.bin")  # of timm's models, as they are looked for


class DataState(NamedTuple):
    """How far a data set is.

    Args:
        name: its option of the group `dataset`.
        root: its folder; None where it is drawn.
        state: embedded, absent, incomplete, present or verified.
        remedy: what to do; may be empty.
        archives: (address, gigabytes) of what is still to be fetched; gigabytes may be None.
        archive_bytes: of all archives that it needs, about.
    """

    name: str
    root: str | None
    state: str
    remedy: str
    archives: tuple[tuple[str, float | None], ...]
    archive_bytes: float


class WeightState(NamedTuple):
    """Weights that a network starts from.

    Args:
        name: of the model whose weights they are, or the file.
        state: cached, to fetch, file or missing.
    """

    name: str
    state: str


def data_state(config: Recipe, choice: str) -> DataState:
    """State of the data set of a training.

    Args:
        config: the training's.
        choice: the option of the group `dataset`.
    """
    root = config["dataset"]["source"].get("root")
    if root is None:
        return DataState(choice, None, "embedded", "", (), 0.0)
    data = build_data(config)
    name = choice
    if data.preparation is None:  # another view of a set that is prepared under its own name
        name = data.name
        config, _ = compose_choices([f"dataset={name}"])
    preparation = build_data(config).preparation
    needed = [a for a in (preparation.archives if preparation else []) if not a.optional]
    missing = [a for a in needed if not is_there(a, Path(preparation.root))]
    archives = tuple((archive.url, archive.gigabytes) for archive in missing)
    size = 1e9 * sum(archive.gigabytes or 0 for archive in needed)
    prepare = f"segtrain prepare dataset={name}"
    unreadable = [split for split in data.splits.values() if not is_readable(data, split)]
    if not unreadable:
        if is_verified(name):
            return DataState(choice, root, "verified", "", (), size)
        return DataState(choice, root, "present", f"to verify: {prepare}", (), size)
    if Path(root).is_dir() and (not needed or len(missing) < len(needed)):
        lacking = ", ".join(dict.fromkeys(unreadable))
        return DataState(choice, root, "incomplete", f"no {lacking}: {prepare}", archives, size)
    return DataState(choice, root, "absent", prepare, archives, size)


def is_verified(name: str) -> bool:
    """Whether `segtrain prepare dataset=<name>` found the files, as they are now, without fault."""
    config, _ = compose_choices([f"dataset={name}"])
    if "filter_empty" in config["dataset"]["source"]:
        config["dataset"]["source"]["filter_empty"] = []  # as `prepare` does
    data = build_data(config)
    folder = cache_root() / "verified" / data.name
    if not folder.is_dir():
        return False
    # Verified as a whole, or as a part with complete=false.
    keys = [state_of(data, *splits_to_verify(data, complete)) for complete in (True, False)]
    return any(key is not None and is_current(folder, key) for key in keys)


def weight_state(config: Recipe) -> WeightState | None:
    """State of the weights that a training starts from, before other stages; None for none."""
    given = config["weights"]
    if given is not None:
        if is_published(given):
            fetched = is_fetched(repository_of(given)) if is_hub(given) else is_here(find(given))
            return WeightState(given, "cached" if fetched else "to fetch")
        return WeightState(given, "file" if Path(given).exists() else "missing")
    backbone = config["architecture"]["backbone"]
    weights, name = backbone["weights"], backbone.get("name", "vgg16")
    flavour, source = flavour_of(weights)
    if source == "none":
        return None
    if source != "imagenet":
        return WeightState(source, "file" if Path(source).is_file() else "missing")
    if flavour.url:
        name, cached = weights, (checkpoints() / flavour.url.rpartition("/")[2]).is_file()
    else:
        cached = is_cached(name)
    return WeightState(f"ImageNet, {name}", "cached" if cached else "to fetch")


def is_cached(name: str) -> bool:
    """Whether timm's weights of a model are on this machine."""
    import timm
    from huggingface_hub import try_to_load_from_cache

    pretrained = timm.get_pretrained_cfg(name)
    if pretrained is None:
        return False
    if pretrained.hf_hub_id:
        found = [try_to_load_from_cache(pretrained.hf_hub_id, file) for file in HUB_FILES]
        if any(isinstance(path, str) for path in found):
            return True
    address = pretrained.url or ""
    return bool(address) and (checkpoints() / address.rpartition("/")[2]).is_file()
