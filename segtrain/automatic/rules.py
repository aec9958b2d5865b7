"""Values that follow from the data and the machine, each with its reason.

They are those of short trainings on data of one's own: good at once, and a place to start from.
"""

import math
from typing import Any, NamedTuple

from segtrain.automatic.facts import Facts

STRIDE = 32  # sides of crops are multiples of it
RARE = 0.1  # of the median class's pixels; below, classes weigh by their frequency


class Choice(NamedTuple):
    """A value and why it is so.

    Args:
        key: in the configuration, with dots.
        value: that is put there.
        reason: for people.
    """

    key: str
    value: Any
    reason: str


def semantic_choices(
    facts: Facts, batch: int, pretrained: bool, steps: int | None = None
) -> list[Choice]:
    """What a network that labels pixels is trained with.

    Args:
        facts: of the data and the machine.
        batch: images a step.
        pretrained: whether it starts from ImageNet weights.
        steps: of the training, where they are given.
    """
    size, scale = training_size(facts)
    crop = crop_size(facts, size)
    height, width = facts.size
    found = []
    if scale < 1:
        found += [
            Choice("inference.size", {"short": min(size)},
                   f"images of {width}x{height} are looked at smaller"),
        ]  # fmt: skip
    found += [
        Choice("dataset.transform.crop_size", list(crop),
               f"part of images of {size[1]}x{size[0]} that is cheap on "
               f"{'a GPU' if facts.gpu else 'a CPU'}"),
        Choice("dataset.transform.scale_range",
               [round(0.75 * scale, 4), round(1.5 * scale, 4)], "a little smaller and larger"),
    ]  # fmt: skip
    weights = class_weights(facts)
    if weights is not None:
        found.append(weights)
    return found + schedule(facts, batch, pretrained, steps)


def instance_choices(
    facts: Facts, batch: int, pretrained: bool, steps: int | None = None
) -> list[Choice]:
    """What a detector is trained with; the arguments as of `semantic_choices`."""
    short = min(detector_size(facts))
    longest = math.ceil(max(detector_size(facts)) * 1.2)
    reason = (f"images of {facts.size[1]}x{facts.size[0]} on "
              f"{'a GPU' if facts.gpu else 'a CPU'}")  # fmt: skip
    return [
        Choice("dataset.transform.short_side", [round(0.8 * short), short], reason),
        Choice("dataset.transform.long_side", longest, "no image is cut"),
        Choice("inference.short_sides", [short], "as in training"),
        Choice("inference.long_side", longest, "as in training"),
        *schedule(facts, batch, pretrained, steps),
    ]


def detector_size(facts: Facts) -> tuple[int, int]:
    """Height and width of an image whose shorter side is as long as a detector is trained with."""
    short = min(800 if facts.gpu else 320, max(STRIDE, min(facts.size)))
    height, width = (math.ceil(short * side / min(facts.size)) for side in facts.size)
    return height, width


def training_size(facts: Facts) -> tuple[tuple[int, int], float]:
    """Height and width at which images are looked at, and the factor to that; large ones shrink."""
    limit = 768 if facts.gpu else 512
    short = min(facts.size)
    scale = limit / short if short > 1.5 * limit else 1.0
    height, width = (max(1, round(scale * side)) for side in facts.size)
    return (height, width), scale


def crop_size(facts: Facts, size: tuple[int, int]) -> tuple[int, int]:
    """Of the images' shape, no larger than they are, with as many pixels as are cheap."""
    area = (512 if facts.gpu else 288) ** 2
    factor = min(1.0, math.sqrt(area / (size[0] * size[1])))
    height, width = (max(STRIDE, int(factor * side / STRIDE) * STRIDE) for side in size)
    return height, width


def batch_size(facts: Facts, fitting: int) -> int:
    """A power of two that fits, and leaves a few steps an epoch even of few images."""
    wanted = min(fitting, 16 if facts.gpu else 8, max(2, facts.images // 2))
    return 2 ** int(math.log2(max(1, wanted)))


def class_weights(facts: Facts) -> Choice | None:
    """Weights by frequency, where a class that occurs is rare."""
    occurring = facts.counts[facts.counts > 0]
    middle = sorted(occurring)[len(occurring) // 2] if len(occurring) else 0
    rarest = min(
        (n for n in range(len(facts.names)) if facts.counts[n]),
        key=lambda n: facts.counts[n],
        default=None,
    )
    if rarest is None or facts.counts[rarest] >= RARE * middle:
        return None
    share = 100 * facts.counts[rarest] / facts.counts.sum()
    return Choice("loss.pixel.class_weights", "sqrt_median_frequency",
                  f"{facts.names[rarest]} has {share:.2g} % of the pixels")  # fmt: skip


def schedule(facts: Facts, batch: int, pretrained: bool, steps: int | None) -> list[Choice]:
    """Steps, unless they are given, learning rate, and how often it is validated."""
    if facts.gpu:
        fewest, most = 8_000, 320_000
    elif pretrained:
        fewest, most = 800, 4_000
    else:  # a small network, four times as fast
        fewest, most = 2_000, 12_000
    passes = 100 if facts.gpu else 30
    if facts.instances:
        fewest, most, passes = fewest // 2, most // 2, passes // 2
    samples = max(min(max(passes * facts.images, fewest), most), facts.images)
    steps = max(10, math.ceil(samples / batch)) if steps is None else steps
    epochs = steps * batch / facts.images
    rate = (1e-3 if pretrained else 3e-3) * math.sqrt(batch / 8)
    if facts.instances:
        rate /= 3
    return [
        Choice("batch_size", batch, f"{facts.images} images, and fits the memory"),
        Choice("trainer.max_steps", steps,
               f"each of the {facts.images} images is seen {epochs:.3g} times"),
        Choice("trainer.val_every_n_steps", max(1, steps // 5), "five times in the training"),
        Choice("trainer.log_every_n_steps", min(50, max(1, steps // 20)), "twenty lines"),
        Choice("optimizer.lr", round(rate, 6),
               f"for {batch} images a step, {'from ImageNet' if pretrained else 'untrained'} "
               "weights"),
        Choice("optimizer.warmup_steps", min(500, steps // 20), "a twentieth of the steps"),
        Choice("callback.ema.decay", round(min(0.999, max(0.9, 1 - 20 / steps)), 4),
               "averages over the last tenth or so"),
    ]  # fmt: skip


def mask_classification(pretrained: bool) -> list[Choice]:
    """How a network of queries learns, in place of what `schedule` says of other networks."""
    reason = "as Mask2Former's authors train"
    rate = Choice("optimizer.lr", 1e-5 if pretrained else 1e-4, f"{reason}, of the backbone")
    return [
        rate,
        Choice("optimizer.head_multiplier", round(1e-4 / rate.value, 6), reason),
        Choice("optimizer.weight_decay", 0.05, reason),
        Choice("optimizer.no_decay", ["norm", "position", "embedding"], reason),
        Choice("trainer.gradient_clip_val", 0.01, reason),
    ]


def workers(facts: Facts) -> Choice | None:
    """None beside a CPU that computes: on two cores they take a fifth to a third of it."""
    if facts.gpu or facts.cores > 4:
        return None
    return Choice("dataset.num_workers", 0, f"{facts.cores} cores compute; a worker would take one")
