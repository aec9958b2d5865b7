"""Several processes: two on one card by gloo, one by nccl: the same scores, and SyncBN."""

import datetime
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from benchmarks.gpu.cell import Cell, Figures, Setting
from segtrain.metric.confusion import ConfusionMatrix, confusion_matrix, scores
from segtrain.sync_batch_norm import synchronise

CLASSES = 19
SIZE = 64
IMAGES = 7  # not to be shared out evenly
CLOSE = 1e-4
PATIENCE = datetime.timedelta(seconds=60)


def cells(setting: Setting) -> list[Cell]:
    """Evaluation first."""
    return [
        Cell("gloo, two processes, evaluation", 15, partial(compare, "gloo", 2, evaluation)),
        Cell("nccl, one process, evaluation", 15, partial(compare, "nccl", 1, evaluation)),
        Cell("gloo, two processes, SyncBN", 15, partial(compare, "gloo", 2, synced_norm)),
        Cell("nccl, one process, SyncBN", 15, partial(compare, "nccl", 1, synced_norm)),
    ]


def compare(
    backend: str, count: int, job: Callable[[torch.device], dict[str, Tensor]], setting: Setting
) -> Figures:
    """What the processes find together, against one process alone."""
    if backend == "nccl" or job is synced_norm:
        setting.require_gpu("nccl" if backend == "nccl" else "PyTorch's SyncBN")
    name = f"{backend}-{count}-{job.__name__}"
    mp.spawn(work, (backend, count, job, setting.device, str(setting.scratch / name)), count)
    together = [torch.load(f"{setting.scratch / name}.{rank}", weights_only=True)
                for rank in range(count)]  # fmt: skip
    alone = job(torch.device(setting.device))
    differences = {
        key: max((own[key].double() - value.cpu().double()).abs().max().item() for own in together)
        for key, value in alone.items()
    }
    worst = max(differences.values())
    exact = worst == 0
    figures: Figures = {"passes": exact if job is evaluation else worst <= CLOSE,
                        "processes": count, "equal to the bit": exact,
                        "largest difference": worst}  # fmt: skip
    if job is evaluation:
        figures["mIoU %"] = 100 * scores(together[0]["matrix"].long()).miou
    return figures


def work(rank: int, backend: str, count: int, job: Callable, device: str, path: str) -> None:
    """One process: connects, does its share and writes what it has then."""
    if device == "cuda":
        torch.cuda.set_device(0)  # all share the one card
    dist.init_process_group(
        backend, init_method=f"file://{Path(path)}.meeting", rank=rank, world_size=count,
        timeout=PATIENCE,
    )  # fmt: skip
    found = job(torch.device(device))
    torch.save({key: value.cpu() for key, value in found.items()}, f"{path}.{rank}")
    dist.barrier()
    dist.destroy_process_group()


def place() -> tuple[int, int]:
    """This process's number and how many there are."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def evaluation(device: torch.device) -> dict[str, Tensor]:
    """The confusion matrix of all images, of which every process sees its share."""
    rank, count = place()
    metric = ConfusionMatrix(CLASSES).to(device)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, CLASSES, (2, IMAGES, SIZE, SIZE), generator=generator)
    for prediction, target in list(zip(*images.to(device), strict=True))[rank::count]:
        metric.update(confusion_matrix(prediction, target.to(torch.uint8), CLASSES, 255))
    return {"matrix": metric.compute()}


def synced_norm(device: torch.device) -> dict[str, Tensor]:
    """Statistics of a batch norm, and the gradient of its weights, over all processes' images."""
    rank, count = place()
    norm = nn.BatchNorm2d(8).to(device)
    if count > 1 or dist.is_initialized():
        layers = nn.Sequential(norm)
        synchronise(layers)
        norm = layers[0]
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(4, 8, 16, 16, generator=generator).to(device)
    output = norm(images[rank::count])
    output.pow(3).sum().backward()
    gradient = norm.weight.grad.clone()
    if dist.is_initialized():
        dist.all_reduce(gradient)
    gradient /= images.numel()
    return {"mean": norm.running_mean, "variance": norm.running_var, "gradient": gradient}
