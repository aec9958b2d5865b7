"""What a training needs on several GPUs, from its work, a device's speed and the links' between.

A step of B images on n GPUs, each of which trains B / n of them, takes

    t(n) = F B / (n R) + E(n) + S(n)
    E(n) = 0 for n = 1, else max(A(b, n), A(4 P, n) - 2/3 F B / (n R))
    A(m, n) = 2 (n - 1) / n m / W + 2 (n - 1) L max(1, m / b rounded up)
    S(n) = sum over batch norms of c channels of (n - 1) (8 c / W + L) + A(8 c, n)

with F operations an image (forward and backward), R operations a second that a device reaches in
training, P parameters, W bytes a second of the slowest link of a device, L seconds that a message
takes on it, and b = 25 MiB, the buckets in which gradients travel. A is a ring all-reduce of m
bytes. That of the float32 gradients, 4 P bytes, runs beside the backward pass, two thirds of the
computing, but for its last bucket, which is ready when the pass ends. A synchronised batch norm
gathers two float32 numbers a channel in the forward pass and all-reduces two in the backward pass,
and the device waits for both.
"""

import math
from dataclasses import dataclass
from functools import cached_property

from segtrain.plan.work import Work

BUCKET = 25 * 2**20  # bytes, PyTorch's default
FLOAT = 4  # bytes
BACKWARD_SHARE = 2 / 3  # of the computing, beside which gradients travel


@dataclass(frozen=True)
class Links:
    """Between devices.

    Args:
        bandwidth: bytes a second of the slowest link of a device, one way.
        latency: seconds of a message.
    """

    bandwidth: float
    latency: float

    def all_reduce(self, size: float, devices: int) -> float:
        """Seconds of a ring all-reduce of so many bytes, in buckets."""
        if devices == 1:
            return 0.0
        buckets = max(1, math.ceil(size / BUCKET))
        travelling = 2 * (devices - 1) / devices * size / self.bandwidth
        return travelling + 2 * (devices - 1) * self.latency * buckets

    def all_gather(self, size: float, devices: int) -> float:
        """Seconds until every device has so many bytes of each."""
        return (devices - 1) * (size / self.bandwidth + self.latency)


@dataclass(frozen=True)
class Training:
    """What the model needs to know of a training.

    Args:
        batch_size: images of a step, over all devices.
        accumulated: forward passes of a step, one after the other.
        steps: of the optimiser; None where they are not known.
        parameters: of the network.
        states: numbers that the optimiser keeps for each: 1 with momentum, 2 with Adam.
        work: of an image.
        seconds: of computing an image on one device.
    """

    batch_size: int
    accumulated: int
    steps: int | None
    parameters: int
    states: int
    work: Work
    seconds: float


@dataclass(frozen=True)
class Scaled:
    """A training on a number of devices.

    Args:
        training: what is trained.
        links: between the devices.
        given: so many devices.
    """

    training: Training
    links: Links
    given: int

    @cached_property
    def devices(self) -> int:
        """Those that can be used: the batch stays the recipe's and is shared out evenly."""
        return usable(self.training.batch_size // self.training.accumulated, self.given)

    @property
    def images(self) -> int:
        """Of a device in a forward pass."""
        return self.training.batch_size // self.training.accumulated // self.devices

    @property
    def computing(self) -> float:
        """Seconds of a step."""
        return self.training.batch_size * self.training.seconds / self.devices

    @property
    def exposed(self) -> float:
        """Seconds of a step in which the device waits for gradients."""
        size = FLOAT * self.training.parameters
        beside = BACKWARD_SHARE * self.computing / self.training.accumulated
        last = self.links.all_reduce(min(size, BUCKET), self.devices)
        return max(last, self.links.all_reduce(size, self.devices) - beside)

    @property
    def synchronised(self) -> float:
        """Seconds of a step in which batch norms wait for each other."""
        sizes = [2 * FLOAT * channels for channels in self.training.work.norms]
        one_pass = sum(
            self.links.all_gather(size, self.devices) + self.links.all_reduce(size, self.devices)
            for size in sizes
        )
        return self.training.accumulated * one_pass

    @property
    def step(self) -> float:
        """Seconds of a step."""
        return self.computing + self.exposed + self.synchronised

    @property
    def seconds(self) -> float | None:
        """Of the training's steps; None where their number is not known."""
        return None if self.training.steps is None else self.training.steps * self.step

    @property
    def efficiency(self) -> float:
        """Share of the time in which the devices compute."""
        return self.computing / self.step

    @property
    def memory(self) -> float:
        """Bytes of a device.

        Weights, gradients, the optimiser's numbers and, with several devices, the buckets: exact;
        and what autograd keeps. Without workspaces, gradients of activations and fragmentation.
        """
        copies = 2 + self.training.states + (self.devices > 1)
        work = self.training.work
        return FLOAT * copies * self.training.parameters + work.kept + self.images * work.saved

    @property
    def traffic(self) -> float:
        """Bytes a second that a device sends, and as many that it receives, on average."""
        sent = 2 * (self.devices - 1) / self.devices * FLOAT * self.training.parameters
        return sent / self.step

    @property
    def images_per_second(self) -> float:
        """Of all devices."""
        return self.training.batch_size / self.step


def usable(images: int, given: int) -> int:
    """The most devices, of those given, that a number of images can be shared out over evenly."""
    return max(n for n in range(1, min(images, given) + 1) if images % n == 0)
