"""Sizes of the networks of transformers, told by their tensors under our names."""

from collections.abc import Mapping

from torch import Tensor

STAGES = range(4)
TABLE = "relative_position_bias_table"

# The sizes of the papers, by which timm's models are named; others are told it one by one.
MIX_TRANSFORMERS = {
    f"mit_b{size}": {"depths": depths, "embed_dims": [32, 64, 160, 256] if size == 0
                     else [64, 128, 320, 512]}
    for size, depths in enumerate(([2, 2, 2, 2], [2, 2, 2, 2], [3, 4, 6, 3], [3, 4, 18, 3],
                                   [3, 8, 27, 3], [3, 6, 40, 3]))
}  # fmt: skip
MIX_TRANSFORMER = {"num_heads": [1, 2, 5, 8], "sr_ratios": [8, 4, 2, 1],
                   "mlp_ratios": [4, 4, 4, 4]}  # fmt: skip
CONVNEXTS = {
    f"convnext_{name}": {"depths": [3, 3, depth, 3], "dims": [width * 2**s for s in STAGES]}
    for name, depth, width in (("tiny", 9, 96), ("small", 27, 96), ("base", 27, 128),
                               ("large", 27, 192), ("xlarge", 27, 256))
}  # fmt: skip
SWINS = {
    f"swin_{name}_patch4_window{window}_{7 * 32 if window == 7 else 384}": {
        "depths": [2, 2, depth, 2], "embed_dim": width, "window_size": window,
        "num_heads": [width // 32 * 2**s for s in STAGES], "mlp_ratio": 4,
    }
    for name, depth, width in (("tiny", 6, 96), ("small", 18, 96), ("base", 18, 128),
                               ("large", 18, 192))
    for window in ((7, 12) if width > 96 else (7,))
}  # fmt: skip


def sizes(kind: str, ours: Mapping[str, Tensor]) -> dict:
    """The settings of timm's body that its tensors tell; heads of a Mix Transformer are a guess."""
    if kind == "segformer":
        stages = [f"backbone.body.stages_{stage}.blocks" for stage in STAGES]
        widths = [len(ours[f"{stage}.0.norm1.weight"]) for stage in stages]
        reductions = [ours.get(f"{stage}.0.attn.sr.weight") for stage in stages]
        return {
            "depths": [count_of(ours, stage) for stage in stages],
            "embed_dims": widths,
            "num_heads": [max(1, width // widths[0]) for width in widths],
            "sr_ratios": [1 if kernel is None else kernel.shape[-1] for kernel in reductions],
            "mlp_ratios": [ratio_of(ours, f"{stage}.0.mlp.fc1.weight") for stage in stages],
        }
    if kind == "convnext":
        stages = [f"backbone.body.stages_{stage}.blocks" for stage in STAGES]
        return {"depths": [count_of(ours, stage) for stage in stages],
                "dims": [len(ours[f"{stage}.0.norm.weight"]) for stage in stages]}  # fmt: skip
    stages = [f"backbone.body.layers_{stage}.blocks" for stage in STAGES]
    tables = [ours[f"{stage}.0.attn.{TABLE}"] for stage in stages]
    return {
        "depths": [count_of(ours, stage) for stage in stages],
        "embed_dim": len(ours[f"{stages[0]}.0.norm1.weight"]),
        "num_heads": [table.shape[1] for table in tables],
        "window_size": round((len(tables[0]) ** 0.5 + 1) / 2),
        "mlp_ratio": ratio_of(ours, f"{stages[0]}.0.mlp.fc1.weight"),
    }


def architecture(
    kind: str, ours: Mapping[str, Tensor], known: Mapping[str, list[int]]
) -> tuple[str, tuple[str, ...]]:
    """What the backbone is called, and the overrides that make the network.

    Args:
        kind: one of LAYOUTS.
        ours: its tensors, by our names.
        known: settings of timm's body that are known otherwise; they win.
    """
    found = sizes(kind, ours) | known
    group, models, others = {
        "segformer": ("segformer", MIX_TRANSFORMERS, MIX_TRANSFORMER),
        "convnext": ("upernet", CONVNEXTS, {}),
        "swin": ("upernet", SWINS, {}),
    }[kind]
    name = next((name for name, own in models.items() if own | others == found), None)
    overrides = [f"architecture={group}"]
    if kind != "segformer":
        option = "convnext_tiny" if kind == "convnext" else "swin_tiny"
        overrides.append(f"architecture/backbone={option}")
        has_auxiliary = "auxiliary.classifier.bias" in ours
        overrides.append(f"architecture.auxiliary={str(has_auxiliary).lower()}")
        if has_auxiliary:
            overrides.append(
                f"architecture.auxiliary_channels={len(ours['auxiliary.conv.1.bias'])}"
            )
    else:
        overrides.append("architecture.backbone.norm_epsilon=1e-5")
    overrides.append(f"architecture.channels={len(ours['head.fusion.1.weight'])}")
    overrides.append(f"architecture.backbone.name={name or next(iter(models))}")
    if name is None:
        overrides += [f"+architecture.backbone.timm_arguments.{key}={written(value)}"
                      for key, value in found.items()]  # fmt: skip
    return name or f"{kind} of another size", tuple(overrides)


def count_of(ours: Mapping[str, Tensor], stage: str) -> int:
    """Blocks of a stage."""
    number = stage.count(".") + 1
    return 1 + max(int(k.split(".")[number]) for k in ours if k.startswith(f"{stage}."))


def ratio_of(ours: Mapping[str, Tensor], key: str) -> int | float:
    """How much wider a layer is than its input."""
    wide, narrow = ours[key].shape
    return wide // narrow if wide % narrow == 0 else wide / narrow


def written(value: list | float) -> str:
    """As an override has it."""
    return str(value).replace(" ", "")
