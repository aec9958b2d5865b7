"""How networks of transformers lie in files: the names of their modules there, and ours."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from segtrain.zoo.sizes import STAGES, TABLE

# Of a module in files, in the modules of transformers 5, and ours; * stands for a block's number.
Names = tuple[tuple[str, str, str], ...]

SEGFORMER_BLOCK: Names = (
    ("layer_norm_1", "layernorm_before", "norm1"),
    ("attention.self.query", "attention.q_proj", "attn.q"),
    ("attention.self.key", "attention.k_proj", "attn.k"),
    ("attention.self.value", "attention.v_proj", "attn.v"),
    ("attention.self.sr", "attention.sequence_reduction.sequence_reduction", "attn.sr"),
    ("attention.self.layer_norm", "attention.sequence_reduction.layer_norm", "attn.norm"),
    ("attention.output.dense", "attention.o_proj", "attn.proj"),
    ("layer_norm_2", "layernorm_after", "norm2"),
    ("mlp.dense1", "mlp.fc1", "mlp.fc1"),
    ("mlp.dwconv.dwconv", "mlp.dwconv.dwconv", "mlp.dwconv"),
    ("mlp.dense2", "mlp.fc2", "mlp.fc2"),
)
SWIN_BLOCK: Names = (
    ("layernorm_before", "layernorm_before", "norm1"),
    (f"attention.self.{TABLE}", f"attention.relative_position_bias.{TABLE}", f"attn.{TABLE}"),
    ("attention.self.query", "attention.q_proj", "attn.q"),
    ("attention.self.key", "attention.k_proj", "attn.k"),
    ("attention.self.value", "attention.v_proj", "attn.v"),
    ("attention.output.dense", "attention.o_proj", "attn.proj"),
    ("layernorm_after", "layernorm_after", "norm2"),
    ("intermediate.dense", "mlp.fc1", "mlp.fc1"),
    ("output.dense", "mlp.fc2", "mlp.fc2"),
)
CONVNEXT_BLOCK = {
    "dwconv": "conv_dw", "layernorm": "norm", "pwconv1": "mlp.fc1", "pwconv2": "mlp.fc2",
    "layer_scale_parameter": "gamma",
}  # fmt: skip
def _segformer() -> Iterator[tuple[str, str, str]]:
    for stage in STAGES:
        old, new = "segformer.encoder", f"segformer.stages.{stage}"
        ours = f"backbone.body.stages_{stage}"
        patches = f"{ours}.downsample" if stage else "backbone.body.patch_embed"
        for theirs, own in (("proj", "proj"), ("layer_norm", "norm")):
            yield (f"{old}.patch_embeddings.{stage}.{theirs}", f"{new}.patch_embeddings.{theirs}",
                   f"{patches}.{own}")  # fmt: skip
        for file, module, own in SEGFORMER_BLOCK:
            yield (f"{old}.block.{stage}.*.{file}", f"{new}.blocks.*.{module}",
                   f"{ours}.blocks.*.{own}")  # fmt: skip
        yield f"{old}.layer_norm.{stage}", f"{new}.layer_norm", f"{ours}.norm"
        yield (f"decode_head.linear_c.{stage}.proj", f"decode_head.linear_projections.{stage}.proj",
               f"head.projections.{stage}")  # fmt: skip
    yield from alike({"linear_fuse": "fusion.0", "batch_norm": "fusion.1",
                       "classifier": "classifier"}, "decode_head", "head")  # fmt: skip


def _upernet() -> Iterator[tuple[str, str, str]]:
    blocks = {"bottleneck": "bottleneck", "fpn_bottleneck": "fusion"}
    blocks |= {f"psp_modules.{level}.1": f"pyramid.reductions.{level}" for level in STAGES}
    blocks |= {f"lateral_convs.{level}": f"laterals.{level}" for level in range(3)}
    blocks |= {f"fpn_convs.{level}": f"smooth.{level}" for level in range(3)}
    head = {"classifier": "classifier"}
    for theirs, own in blocks.items():
        head |= {f"{theirs}.conv": f"{own}.0", f"{theirs}.batch_norm": f"{own}.1"}
    yield from alike(head, "decode_head", "head")
    yield from alike({"convs.0.conv": "conv.0", "convs.0.batch_norm": "conv.1",
                       "classifier": "classifier"}, "auxiliary_head", "auxiliary")  # fmt: skip
    yield from norms_of_maps("backbone")


def norms_of_maps(place: str) -> Iterator[tuple[str, str, str]]:
    """Of the norms behind a backbone's maps; `place` is what it is called there."""
    for stage in STAGES:
        norms = f"{place}.hidden_states_norms.stage{stage + 1}"
        yield norms, norms, f"backbone.norms.{stage}"


def swin(place: str) -> Iterator[tuple[str, str, str]]:
    """Of a Swin transformer that is called `place` there."""
    for theirs, own in (("patch_embeddings.projection", "proj"), ("norm", "norm")):
        yield (f"{place}.embeddings.{theirs}", f"{place}.swin.embeddings.{theirs}",
               f"backbone.body.patch_embed.{own}")  # fmt: skip
    for stage in STAGES:
        old, new = (f"{place}.{part}encoder.layers.{stage}" for part in ("", "swin."))
        for part in ("norm", "reduction"):
            yield (f"{old}.downsample.{part}", f"{new}.downsample.{part}",
                   f"backbone.body.layers_{stage + 1}.downsample.{part}")  # fmt: skip
        for file, module, own in SWIN_BLOCK:
            yield (f"{old}.blocks.*.{file}", f"{new}.blocks.*.{module}",
                   f"backbone.body.layers_{stage}.blocks.*.{own}")  # fmt: skip


def _convnext() -> Iterator[tuple[str, str, str]]:
    yield from _upernet()
    yield from alike({"patch_embeddings": "stem_0", "layernorm": "stem_1"},
                      "backbone.embeddings", "backbone.body")  # fmt: skip
    for stage in STAGES:
        layers = {f"layers.*.{theirs}": f"blocks.*.{own}" for theirs, own in CONVNEXT_BLOCK.items()}
        layers |= {f"downsampling_layer.{part}": f"downsample.{part}" for part in (0, 1)}
        yield from alike(layers, f"backbone.encoder.stages.{stage}",
                          f"backbone.body.stages_{stage}")  # fmt: skip


def alike(names: Mapping[str, str], theirs: str, ours: str) -> Iterator[tuple[str, str, str]]:
    """Of modules that files and modules name alike, below two prefixes."""
    for name, own in names.items():
        yield f"{theirs}.{name}", f"{theirs}.{name}", f"{ours}.{own}"


class Joint(NamedTuple):
    """Projections that are several tensors there and one here.

    Attributes:
        parts: of their names, in the order in which they lie in the one.
        whole: of its name.
    """

    parts: tuple[str, ...]
    whole: str


class Layout(NamedTuple):
    """How a network lies in a file.

    Attributes:
        names: of its modules, and of parameters that are no module's here.
        joints: of its attentions.
    """

    names: Names
    joints: tuple[Joint, ...]


QKV = Joint((".attn.q.", ".attn.k.", ".attn.v."), ".attn.qkv.")
KV = Joint((".attn.k.", ".attn.v."), ".attn.kv.")
SEMANTIC = {
    "segformer": Layout(tuple(_segformer()), (KV,)),
    "swin": Layout((*_upernet(), *swin("backbone")), (QKV,)),
    "convnext": Layout(tuple(_convnext()), ()),
}
