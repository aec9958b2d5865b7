import copy

import torch
from conftest import TINY, only_run
from torch import nn

from segtrain.assembly import build_data, build_task
from segtrain.callback.batch_norm_statistics import take_statistics
from segtrain.cli.evaluate import stored_config
from segtrain.dataset.stream import TrainStream

OWN = ["callback.batch_norm_statistics.num_images=8"]


def test_statistics_are_averages_over_the_batches():
    torch.manual_seed(0)
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Dropout()).eval()
    model[0].running_mean.fill_(100)
    batches = [torch.randn(4, 3, 5, 5) + shift for shift in (0.0, 1.0, 5.0)]
    take_statistics(model, batches)
    means = torch.stack([batch.mean((0, 2, 3)) for batch in batches]).mean(0)
    variances = torch.stack([batch.var((0, 2, 3)) for batch in batches]).mean(0)
    torch.testing.assert_close(model[0].running_mean, means)
    torch.testing.assert_close(model[0].running_var, variances)
    assert model[0].momentum == 0.1
    assert not model.training
    assert not model[1].training


def test_frozen_parts_keep_theirs():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Sequential(nn.BatchNorm2d(3)), nn.BatchNorm2d(3)).train()
    model[0][0].running_mean.fill_(7.0)
    before = copy.deepcopy(model[0].state_dict())
    take_statistics(model, [torch.randn(4, 3, 5, 5)], frozen=[model[0]])
    assert all(torch.equal(before[name], value) for name, value in model[0].state_dict().items())
    # And what comes after them sees what it will see when the network is used.
    assert (model[1].running_mean < -6).all()
    assert model[0].training


def statistics(state: dict) -> dict:
    return {name: value for name, value in state.items() if "running" in name}


def test_frozen_backbone_of_a_run_keeps_its_statistics(segtrain):
    settings = ["~callback.ema", "callback=[batch_norm_statistics]", *OWN, "frozen=[backbone]"]
    code, _, err = segtrain(*TINY, *settings)
    assert code == 0, err
    state = torch.load(only_run() / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    backbone = {n: v for n, v in statistics(state).items() if n.startswith("model.backbone")}
    assert backbone
    assert all((v == (0 if "mean" in n else 1)).all() for n, v in backbone.items())
    assert any((v != 0).any() for n, v in statistics(state).items() if "head" in n)


def test_best_checkpoint_has_them(segtrain):
    code, _, err = segtrain(*TINY, "~callback.ema", "callback=[batch_norm_statistics]", *OWN)
    assert code == 0, err
    state = torch.load(only_run() / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    counters = {value.item() for key, value in state.items() if "num_batches" in key}
    assert counters == {2}  # 8 crops in batches of 4, after four training steps


def test_with_averaged_weights_they_are_those_of_the_averages(segtrain):
    """What is validated and saved has statistics taken with the very weights that it has."""
    chosen = ["callback=[ema,batch_norm_statistics]", "trainer.precision=32-true"]
    code, _, err = segtrain(*TINY, *chosen, *OWN)
    assert code == 0, err
    for name in ("best", "last"):
        path = only_run() / "checkpoints" / f"{name}.ckpt"
        saved = torch.load(path, weights_only=True)["state_dict"]
        config, _ = stored_config(path)
        data = build_data(config)
        task = build_task(config, data.labels)
        task.load_state_dict(saved)
        stream = TrainStream(data.train_source, data.transform, data.seed)
        crops = [stream[position] for position in range(8)]
        take_statistics(
            task.model, [data.transform.collate_train(crops[i : i + 4])["image"] for i in (0, 4)]
        )
        for key, value in statistics(task.state_dict()).items():
            torch.testing.assert_close(saved[key], value, rtol=1e-5, atol=1e-6)
