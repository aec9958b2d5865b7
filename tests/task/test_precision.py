"""Training in every precision, against the same steps written out."""

import copy
import itertools

import pytest
import pytorch_lightning as pl
import torch
from conftest import composed
from pytorch_lightning.plugins import MixedPrecision
from torch import nn
from torch.utils.data import DataLoader

from segtrain.assembly import make
from segtrain.configuration.folder import options
from segtrain.inference.semantic import SemanticInference
from segtrain.label_set import LabelSet
from segtrain.task.segmentation import Segmentation
from segtrain.task.semantic import SemanticEvaluation

CLASSES, STEPS, LIMIT = 3, 8, 0.01
LABELS = LabelSet(("a", "b", "c"), ((0, 0, 0),) * CLASSES, {k: k for k in range(CLASSES)})
NARROW = {"32-true": torch.float32, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
FIRST_SCALE = 2.0**24  # so large that the first gradients of float16 overflow


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Conv2d(3, 4, 3, padding=1)
        self.head = nn.Conv2d(4, CLASSES, 1)

    def forward(self, image):
        x = self.backbone(image / 255).relu()
        return {"logits": self.head(x), "align_corners": False}


def batches(count: int) -> list[dict]:
    torch.manual_seed(0)
    return [
        {
            "image": torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8),
            "mask": torch.randint(0, CLASSES, (2, 16, 16), dtype=torch.uint8),
            "name": ["a", "b"],
        }
        for _ in range(count)
    ]


def joined(parts: int) -> list[dict]:
    """The batches of a training whose steps are computed in so many parts."""
    found = batches(STEPS * parts)
    return [
        {
            "image": torch.cat([part["image"] for part in step]),
            "mask": torch.cat([part["mask"] for part in step]),
            "name": [name for part in step for name in part["name"]],
        }
        for step in (found[i : i + parts] for i in range(0, len(found), parts))
    ]


class GradientNorms(pl.Callback):
    """Of what the optimiser was given, step by step."""

    def __init__(self) -> None:
        self.found: list[float] = []

    def on_train_start(self, trainer, pl_module):
        trainer.optimizers[0].register_step_post_hook(self._add)

    def _add(self, optimizer, args, kwargs):
        self.found.append(norm_of(optimizer))


def norm_of(optimizer: torch.optim.Optimizer) -> float:
    parameters = (p for group in optimizer.param_groups for p in group["params"])
    return torch.stack([p.grad.norm() for p in parameters]).norm().item()


def train(
    model: nn.Module, recipe: dict, precision: str, limit: float | None, accumulate: int
) -> tuple[list[float], float]:
    """Trains as a run does; the norms of the gradients, and the scale at the end."""
    half = precision == "16-mixed"
    scaler = torch.amp.GradScaler("cpu", init_scale=FIRST_SCALE, enabled=half)
    norms = GradientNorms()
    trainer = pl.Trainer(
        accelerator="cpu",
        # Lightning has float16 for GPUs alone, unless it is handed the plugin.
        **({"plugins": MixedPrecision(precision, "cpu", scaler)} if half
           else {"precision": precision}),
        deterministic=True,  # uninitialised memory is NaN
        max_steps=STEPS,
        gradient_clip_val=limit,
        callbacks=norms,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    task = Segmentation(
        model=model,
        loss=make(composed("loss=cross_entropy")["loss"], ignore_index=255),
        inference=SemanticInference(None, False, [1.0], False, None, None),
        evaluation=SemanticEvaluation(LABELS),
        optimizer=make(recipe),
        labels=LABELS,
        config={},
        seed=0,
        compile_model=False,
        freeze_batch_norm=False,
        frozen=[],
        parts=accumulate,
    )
    trainer.fit(task, DataLoader(joined(accumulate), batch_size=None))
    return norms.found, scaler.get_scale()


def train_by_hand(
    model: nn.Module, recipe: dict, precision: str, limit: float | None, accumulate: int
) -> tuple[list[float], float]:
    """The same with nothing fused: the norms before they are limited, and the scale at the end."""
    optimizer, schedule = make(recipe)(model, STEPS)
    for group in optimizer.param_groups:
        group["fused"] = False
    half = precision == "16-mixed"
    scale, norms = FIRST_SCALE if half else 1.0, []
    for index, batch in enumerate(batches(STEPS * accumulate), 1):
        with torch.autocast("cpu", NARROW[precision], enabled=precision != "32-true"):
            logits = model(batch["image"])["logits"]
        loss = nn.functional.cross_entropy(logits.float(), batch["mask"].long())
        (scale * loss / accumulate).backward()
        if index % accumulate:
            continue
        for parameter in model.parameters():
            parameter.grad /= scale
        norms.append(norm_of(optimizer))
        if torch.tensor(norms[-1]).isfinite():
            if limit is not None:
                nn.utils.clip_grad_norm_(model.parameters(), limit)
            optimizer.step()
        else:
            scale /= 2
        optimizer.zero_grad()
        schedule.step()
    return norms, scale


@pytest.fixture
def _undetermined():
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("_undetermined")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("precision", "limit", "name", "accumulate"),
    itertools.product(NARROW, (None, LIMIT), options("optimizer"), (1, 2)),
)
def test_training_equals_the_steps_written_out(precision, limit, name, accumulate):
    torch.manual_seed(1)
    ours = Net()
    theirs = copy.deepcopy(ours)
    recipe = composed(f"optimizer={name}", "optimizer.lr=0.01")["optimizer"]
    seen, scale = train(ours, recipe, precision, limit, accumulate)
    norms, expected_scale = train_by_hand(theirs, recipe, precision, limit, accumulate)
    finite = [index for index, norm in enumerate(norms) if norm < float("inf")]
    assert finite
    if precision == "16-mixed":
        assert len(finite) < STEPS  # steps are skipped, and the scale goes down
        assert scale == expected_scale < FIRST_SCALE
    if limit is not None:
        assert min(norms[index] for index in finite) > limit
        assert max(seen[index] for index in finite) <= limit * 1.001
    for our, their in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(our, their, rtol=1e-4, atol=1e-6)
