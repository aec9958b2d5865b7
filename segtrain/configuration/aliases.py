"""Short forms of keys, and the names that other programs have for them."""

TRAINING = ("train", "chain", "plan", "reproduce")
NETWORK = (*TRAINING, "benchmark")  # whose measures have sizes and steps of their own

# Short form -> command -> the full key that it stands for there; other commands have no such form.
ALIASES: dict[str, dict[str, str]] = {
    "data": dict.fromkeys((*NETWORK, "evaluate", "prepare"), "dataset"),
    "model": dict.fromkeys(NETWORK, "architecture"),
    "backbone": dict.fromkeys(NETWORK, "architecture.backbone.name"),
    "multilabel": dict.fromkeys(TRAINING, "inference"),
    "epochs": dict.fromkeys(TRAINING, "trainer.max_epochs"),
    "steps": dict.fromkeys(TRAINING, "trainer.max_steps"),
    "size": {**dict.fromkeys((*TRAINING, "prepare"), "dataset.transform.crop_size"),
             "predict": "short_side"},
    "batch": dict.fromkeys((*NETWORK, "predict"), "batch_size"),
    "lr": dict.fromkeys(NETWORK, "optimizer.lr"),
    "workers": {**dict.fromkeys((*NETWORK, "prepare"), "dataset.num_workers"),
                "predict": "num_workers"},
    "devices": dict.fromkeys((*NETWORK, "evaluate", "predict", "report"), "trainer.devices"),
    "name": dict.fromkeys(("train", "chain"), "hydra.run.dir"),
    "source": {"predict": "input"},
    "conf": {"predict": "min_score"},
}  # fmt: skip
MEANINGS = {
    "data": "a data set's name, or annotated pictures of your own",
    "multilabel": "true: classes may overlap; of data=<folder> a mask a class is read",
    "epochs": "and no trainer.max_steps",
    "steps": "and no trainer.max_epochs",
    "size": "in pixels; of crops also height,width",
    "name": "runs go to outputs/<name>/<date_time>",
}
# Of detectors, which see whole images.
SIDES = ("dataset.transform.short_side", "dataset.transform.long_side")

# What other programs call a short form, and keys that have none.
OTHER_NAMES = {
    "learning_rate": "lr", "num_epochs": "epochs", "iterations": "steps", "max_iters": "steps",
    "bs": "batch", "network": "model", "image_size": "size", "imgsz": "size", "gpus": "devices",
    "images": "source", "threshold": "conf",
}  # fmt: skip
WITHOUT_ALIAS: dict[str, tuple[str, ...]] = {
    "wd": ("optimizer.weight_decay",),
    "amp": ("trainer.precision", "precision"),
    "fp16": ("trainer.precision", "precision"),
    "out": ("output",),
    "pretrained": ("architecture.backbone.weights", "weights"),
    "ckpt": ("checkpoint", "weights"),
    "clip": ("trainer.gradient_clip_val",),
}


def meant(name: str) -> tuple[str, ...]:
    """The full keys that a short form or another program's name may stand for, in any command."""
    if name in WITHOUT_ALIAS:
        return WITHOUT_ALIAS[name]
    alias = OTHER_NAMES.get(name, name)
    keys = dict.fromkeys(ALIASES.get(alias, {}).values())
    return (*keys, SIDES[0]) if alias == "size" else tuple(keys)
