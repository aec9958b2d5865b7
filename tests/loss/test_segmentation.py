import numpy as np
import pytest
import torch

from segtrain.loss.pixel import CrossEntropy
from segtrain.loss.segmentation import SegmentationLoss


def make(class_weights=None, label_smoothing=0.0, aux_weight=0.4):
    def pixel(ignore_index):
        return CrossEntropy(class_weights, label_smoothing, ignore_index)

    return SegmentationLoss(pixel, aux_weight, ignore_index=255)


def slow_cross_entropy(logits, target, weights):
    """NumPy, pixel by pixel, over the valid ones."""
    total = norm = 0.0
    for (n, y, x), label in np.ndenumerate(target):
        if label == 255:
            continue
        scores = logits[n, :, y, x].astype(np.float64)
        log_p = scores[label] - scores.max() - np.log(np.exp(scores - scores.max()).sum())
        total -= weights[label] * log_p
        norm += weights[label]
    return total / norm


@pytest.mark.parametrize("weights", [None, [0.5, 2.0, 1.0, 3.0]])
def test_equals_slow_reference(weights):
    torch.manual_seed(0)
    logits = torch.randn(2, 4, 5, 6)
    target = torch.randint(0, 4, (2, 5, 6), dtype=torch.uint8)
    target[0, :3] = 255
    loss = make(weights)({"logits": logits}, target)["main"]
    expected = slow_cross_entropy(logits.numpy(), target.numpy(), weights or [1.0] * 4)
    assert loss.item() == pytest.approx(expected, abs=1e-5)


def test_void_pixels_change_nothing():
    torch.manual_seed(0)
    logits = torch.randn(1, 3, 4, 4)
    target = torch.randint(0, 3, (1, 4, 4))
    alone = make()({"logits": logits}, target)["main"]
    wide = torch.cat([logits, torch.randn(1, 3, 4, 4)], dim=3)
    padded = torch.cat([target, torch.full((1, 4, 4), 255)], dim=2)
    torch.testing.assert_close(make()({"logits": wide}, padded)["main"], alone)


def test_all_void_is_zero_with_zero_gradient():
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    for weights in (None, [1.0, 2.0, 3.0]):
        loss = make(weights)({"logits": logits}, torch.full((1, 8, 8), 255))["main"]
        loss.backward()
        assert loss.item() == 0
        assert (logits.grad == 0).all()


def test_auxiliary_term_is_weighted():
    torch.manual_seed(0)
    logits, target = torch.randn(1, 3, 4, 4), torch.randint(0, 3, (1, 8, 8))
    terms = make(aux_weight=0.25)({"logits": logits, "aux": logits}, target)
    torch.testing.assert_close(terms["aux"], 0.25 * terms["main"])


def test_softmax_is_float32_under_autocast():
    logits = (100 * torch.randn(1, 3, 4, 4)).bfloat16()
    target = torch.randint(0, 3, (1, 4, 4))
    with torch.autocast("cpu", torch.bfloat16):
        loss = make()({"logits": logits}, target)["main"]
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, make()({"logits": logits.float()}, target)["main"])


def _share(rank, port, queue):
    import torch.distributed as dist

    dist.init_process_group("gloo", f"tcp://localhost:{port}", rank=rank, world_size=2)
    logits, target = _halves()[rank]
    logits.requires_grad_()
    make()({"logits": logits}, target)["main"].backward()
    queue.put((rank, logits.grad.numpy()))
    dist.barrier()
    dist.destroy_process_group()


def _halves():
    torch.manual_seed(1)
    logits, target = torch.randn(2, 3, 8, 8), torch.randint(0, 3, (2, 8, 8))
    target[0, 1:] = 255  # one process has 8 valid pixels, the other 64
    return [(logits[:1].clone(), target[:1]), (logits[1:].clone(), target[1:])]


def test_two_processes_average_over_all_their_valid_pixels():
    import socket

    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    context = torch.multiprocessing.get_context("spawn")
    queue = context.Queue()
    workers = [context.Process(target=_share, args=(r, port, queue)) for r in range(2)]
    for worker in workers:
        worker.start()
    gradients = dict(queue.get(timeout=120) for _ in workers)
    for worker in workers:
        worker.join()
    (first, first_target), (second, second_target) = _halves()
    joint = torch.cat([first, second]).requires_grad_()
    make()({"logits": joint}, torch.cat([first_target, second_target]))["main"].backward()
    for rank in range(2):
        averaged = torch.from_numpy(gradients[rank]) / 2  # as data-parallel training does
        torch.testing.assert_close(averaged, joint.grad[rank : rank + 1])
