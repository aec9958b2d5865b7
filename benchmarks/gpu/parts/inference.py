"""Tests and predictions: windows, scales, CRF, masks, folders, videos, beside the peers."""

import time
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.gpu.cell import Cell, Figures, Setting
from benchmarks.gpu.commands import config_of, quickstart, rows, start, untrained
from benchmarks.gpu.timing import peak_mb, reset_peak, seconds_per_call
from segtrain.assembly import build_data, build_model, make
from segtrain.benchmark import detector
from segtrain.benchmark.crf import blurred, generate
from segtrain.hardware import resolve_precision
from segtrain.masks import paste

PHOTOGRAPH = 375, 500
SMALL = ("architecture.backbone.name=test_resnet", "architecture.backbone.multi_grid=null")
UNTRAINED = "architecture.backbone.weights=none"


def cells(setting: Setting) -> list[Cell]:
    """Those that evaluations wait for, then those of predictions."""
    return [
        Cell("sliding window, 1024x2048", 25, sliding, "sliding window"),
        Cell("six scales and mirrored", 20, multiscale, "against plain code"),
        Cell("predict a folder", 40, folder, "predict"),
        Cell("Mask R-CNN test, 800", 20, detection, "against plain code"),
        Cell("mask pasting", 5, pasting, "against plain code"),
        Cell("CRF, 375x500", 10, crf, "CRF"),
        Cell("predict a video", 20, video, "predict"),
    ]


def sliding(setting: Setting) -> Figures:
    """Windows of 769 over a Cityscapes image, by numbers of windows at once."""
    chosen = ["measure=sliding", "dataset=cityscapes", "architecture=deeplabv3plus", UNTRAINED]
    settings = {"size": [1024, 2048], "crop_size": [769, 769], "stride": [513, 513],
                "crops_at_once": [1, 4, 8], "rounds": 3}  # fmt: skip
    if setting.tiny:
        chosen += SMALL
        settings = {"size": [60, 70], "crop_size": [33, 33], "stride": [22, 22],
                    "crops_at_once": [1, 4], "rounds": 1}  # fmt: skip
    found = rows(setting, chosen, settings)
    names = ["plain", *(f"{count} at once" for count in settings["crops_at_once"])]
    figures: Figures = {f"{n} ms": row["ms"] for n, row in zip(names, found, strict=True)}
    return figures | {"times faster": found[0]["ms"] / min(row["ms"] for row in found[1:]),
                      "largest difference": max(row["largest difference"] for row in found),
                      "MB": found[-1]["peak memory so far MB"]}  # fmt: skip


def multiscale(setting: Setting) -> Figures:
    """The paper's test of DeepLabv3 on a photograph, against one look after the other."""
    chosen = ["architecture=deeplabv3", "dataset=voc", "inference=multiscale", UNTRAINED]
    config = config_of(setting, "train", [*chosen, *(SMALL if setting.tiny else ())])
    device = torch.device(setting.device)
    model = build_model(config, build_data(config).labels.num_classes).to(device).eval()
    size = (33, 40) if setting.tiny else PHOTOGRAPH
    image = torch.randint(0, 256, (3, *size), dtype=torch.uint8, device=device)
    inference = make(config["inference"])
    ours = partial(inference, model, [image])
    plain = partial(plain_scales, model, image, inference.scales)
    half = resolve_precision(config["trainer"]) == "bf16-mixed"
    with torch.no_grad(), torch.autocast(setting.device, torch.bfloat16, enabled=half):
        return beside(setting, ours, plain)


def plain_scales(model: nn.Module, image: Tensor, scales: list[float]) -> Tensor:
    """Mean probabilities (K, H, W) of an image (3, H, W) uint8, as scripts add them up."""
    height, width = image.shape[1:]
    total = 0
    for scale, mirrored in product(scales, (False, True)):
        size = [round(height * scale), round(width * scale)]
        seen = F.interpolate(image[None].float(), size, mode="bilinear").round().to(torch.uint8)
        logits = model(seen.flip(3) if mirrored else seen)["logits"].float()
        scores = F.interpolate(logits, (height, width), mode="bilinear").softmax(1)[0]
        total = total + (scores.flip(2) if mirrored else scores)
    return total / (2 * len(scales))


def detection(setting: Setting) -> Figures:
    """A test image from the network to thresholded masks, against torchvision's."""
    chosen = ["architecture=mask_rcnn", "dataset=coco2017", UNTRAINED, "batch_size=1"]
    config = config_of(setting, "train", chosen)
    precision, size = (
        resolve_precision(config["trainer"]),
        (64, 96) if setting.tiny else (800, 1088),
    )
    classes, device = build_data(config).labels.num_classes, torch.device(setting.device)
    calls = [build(config, size, 2, "test", precision, device, classes)[1]
             for build in (detector.ours, detector.theirs)]  # fmt: skip
    return {"precision": precision, **beside(setting, *calls)}


def pasting(setting: Setting) -> Figures:
    """A hundred masks of 28x28 cells into a picture of 800x1333, codes here and images there."""
    from torchvision.models.detection.roi_heads import paste_masks_in_image

    size, count = ((64, 96), 5) if setting.tiny else ((800, 1333), 100)
    device = torch.device(setting.device)
    masks = torch.rand(count, 28, 28, device=device)
    corner = torch.rand(count, 2, device=device) * torch.tensor(size[::-1], device=device) * 0.7
    boxes = torch.cat([corner, corner + 20 + 0.25 * min(size)], 1)

    def ours() -> None:
        paste(masks.cpu().numpy(), boxes.cpu().numpy(), size, 0.5)

    def theirs() -> None:
        (paste_masks_in_image(masks[:, None], boxes, size) > 0.5).cpu()

    return beside(setting, ours, theirs)


def crf(setting: Setting) -> Figures:
    """DeepLabv2's CRF on the processor, beside pydensecrf2 where it is, and on the device."""
    size, classes = ((40, 50), 3) if setting.tiny else (PHOTOGRAPH, 21)
    chosen = ["measure=crf", "measure.threads=null"]
    (row,) = rows(setting, chosen, {"size": list(size), "classes": classes, "rounds": 1})
    figures: Figures = {key: row.get(key) for key in
                        ("threads", "segtrain ms", "pydensecrf2 ms", "times faster")}  # fmt: skip
    setting.report(figures)
    refine = make(config_of(setting, "benchmark", chosen)["measure"]["crf"])
    rng = np.random.default_rng(0)
    picture, truth = generate(rng, list(size), classes)
    image = torch.from_numpy(picture).permute(2, 0, 1).to(setting.device)
    probabilities = torch.from_numpy(blurred(rng, truth, classes)).to(setting.device)
    call = partial(refine, image, probabilities)
    figures["on the device ms"] = 1e3 * seconds_per_call(call, 0 if setting.tiny else 1.0)
    return figures


def folder(setting: Setting) -> Figures:
    """`segtrain predict` of a folder of photographs, against torchvision's network in a loop."""
    count, size = (3, (40, 50)) if setting.tiny else (500, PHOTOGRAPH)
    photographs = setting.scratch / "photographs"
    if not photographs.exists():
        photographs.mkdir()
        for number in range(count):
            cv2.imwrite(str(photographs / f"{number}.jpg"), picture_of(number, size))
    seconds = predict(setting, photographs, "predicted")
    figures: Figures = {"inputs": count, "size": f"{size[0]}x{size[1]}",
                        "images/s": count / seconds, "s": seconds}  # fmt: skip
    few = sorted(photographs.iterdir())[: 2 if setting.tiny else 100]
    peer = plain_predictions(setting, few)
    return figures | {"torchvision images/s": len(few) / peer, "times the peer": count / seconds /
                      (len(few) / peer)}  # fmt: skip


def plain_predictions(setting: Setting, files: list[Path]) -> float:
    """Seconds of a script's loop: read, one image at a time through the network, write labels."""
    from torchvision.models.segmentation import deeplabv3_resnet50

    device = torch.device(setting.device)
    model = (
        deeplabv3_resnet50(weights=None, weights_backbone=None, num_classes=21).eval().to(device)
    )
    out = setting.scratch / "labels of the peer"
    out.mkdir(exist_ok=True)
    started = 0.0
    with torch.no_grad():
        for number, file in enumerate([files[0], *files]):
            if number == 1:  # after one that is not timed
                started = time.perf_counter()
            pixels = torch.from_numpy(cv2.imread(str(file))[..., ::-1].copy()).permute(2, 0, 1)
            batch = (pixels[None].to(device).float() / 255 - 0.45) / 0.225
            labels = model(batch)["out"][0].argmax(0).to(torch.uint8).cpu().numpy()
            cv2.imwrite(str(out / f"{file.stem}.png"), labels)
    return time.perf_counter() - started


def video(setting: Setting) -> Figures:
    """`segtrain predict` of a video of 720 lines."""
    count, size = (3, (48, 64)) if setting.tiny else (120, (720, 1280))
    path = setting.scratch / "video.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 25, size[::-1])
    for number in range(count):
        writer.write(picture_of(number % 8, size))
    writer.release()
    seconds = predict(setting, path, "predicted video")
    return {"inputs": count, "size": f"{size[0]}x{size[1]}", "images/s": count / seconds,
            "s": seconds}  # fmt: skip


def predict(setting: Setting, what: Path, name: str) -> float:
    """Seconds of the command, from its start to its end, in this process."""
    if setting.tiny:
        checkpoint = quickstart(setting) / "checkpoints" / "best.ckpt"
    else:
        chosen = ["architecture=deeplabv3_torchvision", "dataset=voc", UNTRAINED,
                  "trainer.max_steps=1"]  # fmt: skip
        checkpoint = untrained(setting, "deeplabv3 of voc", chosen)
    values = {"checkpoint": str(checkpoint), "input": str(what),
              "output": str(setting.scratch / name), "precision": "auto"}  # fmt: skip
    started = time.perf_counter()
    start(setting, "predict", [], setting.scratch / f"run of {name}", values)
    return time.perf_counter() - started


def picture_of(number: int, size: tuple[int, int]) -> np.ndarray:
    """A smooth random picture (H, W, 3) uint8."""
    coarse = np.random.default_rng(number).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    return cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC)


def beside(setting: Setting, ours: Callable, theirs: Callable) -> Figures:
    """Milliseconds of both, A B A, and the memory of each on the device."""
    seconds, memory = [], []
    for call in (ours, theirs, ours):
        call()
        reset_peak()
        seconds.append(seconds_per_call(call, 0 if setting.tiny else 1.0))
        memory.append(peak_mb(setting))
    mean = (seconds[0] + seconds[2]) / 2
    return {"ms": 1e3 * mean, "peer ms": 1e3 * seconds[1], "times faster": seconds[1] / mean,
            "MB": memory[0], "peer MB": memory[1]}  # fmt: skip
