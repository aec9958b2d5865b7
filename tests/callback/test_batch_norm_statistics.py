import torch
from conftest import TINY, only_run
from torch import nn

from segtrain.callback.batch_norm_statistics import take_statistics


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


def test_best_checkpoint_has_them(segtrain):
    code, _, err = segtrain(
        *TINY, "~callback.ema", "callback=[batch_norm_statistics]",
        "callback.batch_norm_statistics.num_images=8",
    )  # fmt: skip
    assert code == 0, err
    state = torch.load(only_run() / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    counters = {value.item() for key, value in state.items() if "num_batches" in key}
    assert counters == {2}  # 8 crops in batches of 4, after four training steps
