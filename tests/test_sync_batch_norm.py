"""Synchronised batch norm: a converted network is the same function, whatever it is made of."""

import copy
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from conftest import TINY, architectures, composed, results_of, small_network
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.plugins import LayerSync
from torch import Tensor, nn

from segtrain.architecture.backbone import TimmBackbone
from segtrain.architecture.blocks import BatchNorm, batch_norms
from segtrain.assembly import build_task, make
from segtrain.sync_batch_norm import SyncBatchNorm, synchronise
from segtrain.trainer import common_trainer_arguments

# Families whose batch norms have the activation inside, have it apart, or stand in branches.
FAMILIES = [
    "cspresnet50", "densenet121", "efficientnet_b0", "efficientnet_lite0", "fastvit_t8",
    "ghostnet_100", "hrnet_w18_small", "mobilenetv3_small_050", "regnety_002", "repvgg_a0",
    "resnet10t", "rexnet_100", "skresnet18", "xception41",
]  # fmt: skip


def unsettled(model: nn.Module) -> nn.Module:
    """In evaluation, with statistics, scales and shifts as if it had been trained."""
    torch.manual_seed(0)
    for layer in batch_norms(model):
        nn.init.normal_(layer.running_mean)
        nn.init.uniform_(layer.running_var, 0.5, 1.5)
    for parameter in model.parameters():  # what is scaled down to nothing would hide all before it
        if parameter.numel() == max(parameter.shape) or not parameter.any():
            nn.init.uniform_(parameter, 0.5, 1.5)
    return model.eval()


def assert_same(one: list[Tensor], other: list[Tensor]) -> None:
    """Equal to a millionth of each tensor's largest value, and more than zeros."""
    assert len(one) == len(other) > 0
    for mine, others in zip(one, other, strict=True):
        assert mine.any()
        assert (mine - others).abs().max() <= 1e-6 * mine.abs().max()


def assert_converted(model: nn.Module, plain: nn.Module) -> None:
    """No batch norm of its own is left, and all is called what it was."""
    assert all(isinstance(layer, nn.SyncBatchNorm) for layer in batch_norms(model))
    assert list(model.state_dict()) == list(plain.state_dict())
    names = [name for name, _ in plain.named_parameters()]
    assert [name for name, _ in model.named_parameters()] == names


@pytest.mark.parametrize("name", FAMILIES)
def test_converted_backbone_is_the_same_function(name):
    plain = unsettled(TimmBackbone(name, "none", 32, False, None, {}))
    model = copy.deepcopy(plain)
    synchronise(model)
    assert_converted(model, plain)
    image = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        assert_same(plain(image), model(image))


KINDS = ("semantic", "instance", "mask_classification")


@pytest.mark.parametrize("name", [name for kind in KINDS for name in architectures(kind)])
def test_converted_network_is_the_same_function(name):
    chosen = f"architecture={name}"
    is_semantic = name not in architectures("instance")
    dataset = "dataset=shapes" if is_semantic else "dataset=shapes_instances"
    config = composed(chosen, *small_network(chosen), dataset)
    task = build_task(config, make(config["dataset"]["labels"]))
    plain = unsettled(task.model)
    model = copy.deepcopy(plain)
    synchronise(model)
    assert_converted(model, plain)
    image = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        found = [task.inference(network, [image])[0] for network in (plain, model)]
    parts = ("boxes", "scores", "masks")
    assert_same(*([f] if is_semantic else [f[part] for part in parts] for f in found))


def test_converted_again_keeps_the_activations():
    """As a second training in the same processes would."""
    model = unsettled(TimmBackbone("regnety_002", "none", 32, False, None, {}))
    image = torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        expected = model(image)
        synchronise(model)
        synchronise(model)
        assert_same(expected, model(image))


class Converts(Callback):
    """Converts the network when distributed training does, after averages were copied from it."""

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        synchronise(pl_module)
        assert all(isinstance(layer, nn.SyncBatchNorm) for layer in batch_norms(pl_module))


def test_training_averaging_and_evaluating_a_converted_network(segtrain):
    """In one process the layers are plain ones, so all that a run leaves behind is the same."""
    for name, overrides in (
        ("plain", []),
        ("converted", ["+callback.convert={_target_: test_sync_batch_norm.Converts}"]),
    ):
        code, _, err = segtrain(*TINY, f"hydra.run.dir={name}", *overrides)
        assert code == 0, err
    assert results_of(Path("plain"))["metrics"] == results_of(Path("converted"))["metrics"]
    for file in ("best.ckpt", "last.ckpt"):
        plain, converted = (
            torch.load(f"{name}/checkpoints/{file}", weights_only=True)
            for name in ("plain", "converted")
        )
        for part in ("state_dict", "current_model_state"):
            assert list(plain[part]) == list(converted[part])
            for key, value in plain[part].items():
                assert torch.equal(value, converted[part][key]), key


def test_processes_of_a_group_share_their_statistics(monkeypatch):
    monkeypatch.setattr("segtrain.sync_batch_norm.number_of_processes", lambda: 2)
    model = SyncBatchNorm().apply(nn.Sequential(nn.Conv2d(3, 4, 1), BatchNorm(4)))
    assert isinstance(model[1], nn.SyncBatchNorm)


def test_a_single_process_keeps_layers_that_take_a_single_value():
    """Behind global pooling of one image, where PyTorch's layer refuses to train."""
    plugin = SyncBatchNorm()
    model = plugin.apply(nn.Sequential(nn.Conv2d(3, 4, 1), BatchNorm(4)))
    assert model.train()(torch.ones(1, 3, 1, 1)).isfinite().all()
    assert plugin.revert(model) is model


@pytest.mark.parametrize(
    ("devices", "gpu", "expected"), [(1, True, 0), (2, False, 0), (2, True, 1)]
)
def test_trainings_on_several_gpus_have_it(monkeypatch, devices, gpu, expected):
    monkeypatch.setattr("segtrain.trainer.uses_gpu", lambda settings: gpu)
    monkeypatch.setattr("torch.set_float32_matmul_precision", lambda precision: None)
    settings = composed(f"trainer.devices={devices}", "trainer.precision=32-true")["trainer"]
    plugins = common_trainer_arguments(settings, Path())["plugins"]
    found = [plugin for plugin in plugins if isinstance(plugin, LayerSync)]
    assert [type(plugin) for plugin in found] == [SyncBatchNorm] * expected
