"""A peer to compare with on one machine: a simple segmentation_models.pytorch recipe on CamVid.

DeepLabV3+ with a ResNet-18 encoder from scratch, half-scale input, AdamW with poly decay, class
weights sqrt(median frequency), averaged weights; the same data, split, metric and machine as
`segtrain experiment=deeplabv3_camvid`, for the same number of training seconds.

    pip install segmentation-models-pytorch
    python scripts/camvid_peer.py --seconds 600
"""

import argparse
import time

import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from segtrain.assembly import build_data
from segtrain.configuration.folder import conf_dir
from segtrain.dataset.batches import collate_crops
from segtrain.dataset.stream import StepSampler, TrainStream
from segtrain.hardware import resolve_precision
from segtrain.metric.confusion import ConfusionMatrix, scores

MEAN = 255 * torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
STD = 255 * torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
BATCH, LR = 4, 2e-3
OVERRIDES = [
    "experiment=deeplabv3_camvid",
    "dataset.transform.crop_size=[256,256]",
    "dataset.transform.scale_range=[0.375,0.75]",  # half scale times 0.75 to 1.5
]


def main(seconds: float) -> None:
    """Trains for that many seconds of steps, then prints the mIoU of val and test."""
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = OmegaConf.to_container(compose("train", OVERRIDES), resolve=True)
    torch.manual_seed(config["seed"])
    data = build_data(config)
    model = smp.DeepLabV3Plus("resnet18", encoder_weights=None, classes=11)
    model = model.to(memory_format=torch.channels_last)
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.98), use_buffers=True)
    weights = torch.tensor(config["loss"]["pixel"]["class_weights"])
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR)
    low = resolve_precision({"precision": "auto", "accelerator": "cpu"}) == "bf16-mixed"
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=low)
    stream = TrainStream(data.train_source, data.transform, config["seed"])
    loader = DataLoader(
        stream,
        batch_sampler=StepSampler(10**6, BATCH, 0, 1, 0),
        num_workers=1,
        collate_fn=collate_crops,
    )
    spent, steps = 0.0, 0
    started = time.perf_counter()
    for batch in loader:
        for group in optimizer.param_groups:
            group["lr"] = LR * max(0.0, 1 - spent / seconds) ** 0.9
        with autocast:
            logits = model((batch["image"].float() - MEAN) / STD)
        loss = F.cross_entropy(logits.float(), batch["mask"].long(), weights, ignore_index=255)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        averaged.update_parameters(model)
        steps, spent = steps + 1, time.perf_counter() - started
        if spent >= seconds:
            break
    print(f"{steps} steps, {steps * BATCH / spent:.1f} images/s, {spent:.0f} s")
    for split in ("val", "test"):
        print(f"{split} mIoU {100 * evaluate(averaged.module.eval(), data.source(split)):.2f}")


@torch.no_grad()
def evaluate(model: torch.nn.Module, source: object) -> float:
    """mIoU at the original label size of half-scale inputs (padded to the network's stride)."""
    matrix = ConfusionMatrix(11, ignore_index=255)
    for index in range(len(source)):
        image, mask = source.read(index)
        x = torch.from_numpy(image).permute(2, 0, 1)[None].float()
        size = [side // 2 for side in mask.shape]
        x = (F.interpolate(x, size, mode="bilinear", antialias=True) - MEAN) / STD
        padded = F.pad(x, (0, -size[1] % 16, 0, -size[0] % 16))
        logits = model(padded)[..., : size[0], : size[1]]
        full = F.interpolate(logits, mask.shape, mode="bilinear")
        matrix.update(full.argmax(1)[0], torch.from_numpy(mask))
    return scores(matrix.compute()).miou


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    main(parser.parse_args().seconds)
