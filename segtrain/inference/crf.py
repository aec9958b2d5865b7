"""Fully connected CRF on the probabilities of an image's pixels, by mean field.

Kraehenbuehl and Koltun 2011, Efficient Inference in Fully Connected CRFs with Gaussian Edge
Potentials (arXiv 1210.5644).
"""

from dataclasses import asdict, dataclass
from typing import Literal, Protocol, get_args

import torch
from torch import Tensor

from segtrain.errors import UserError
from segtrain.inference.permutohedral import Lattice
from segtrain.values import Natural, NonNegative, Positive

Mode = Literal["lattice", "exact"]
LEAST = 1e-30  # a probability's; its log is finite and marginals stay in float32's normal range
BLOCK = 1 << 14  # pixels whose scores of a step fit into a core's cache, for each thread
MOST_EXACT = 1 << 13  # pixels in exact mode, which keeps a weight for every two: 512 MiB


class Kernel(Protocol):
    """A Gaussian kernel K between the N pixels of an image as D^-1/2 K D^-1/2, D its row sums."""

    def spread(self, values: Tensor) -> Tensor:
        """What `read` needs of values (N, K) float32."""

    def read(self, table: Tensor, points: slice) -> Tensor:
        """Rows `points` of the kernel's matrix times the values: (n, K) float32."""


@dataclass(frozen=True)
class DenseCRF:
    """Potts model with a kernel of position and one of position and colour (paper, section 2).

    Two pixels of different labels cost `position_weight * k1 + bilateral_weight * k2`, where

        k1 = exp(-|p_i - p_j|^2 / (2 position_sigma^2))
        k2 = exp(-|p_i - p_j|^2 / (2 bilateral_sigma^2) - |I_i - I_j|^2 / (2 colour_sigma^2))

    of positions p in pixels and colours I in 0..255, every sigma a standard deviation. In the
    paper's equation 3, and DeepLab's, the weights of k2 and k1 are w1 and w2, and the sigmas alpha,
    beta (k2) and gamma (k1). As in the authors' code, kernels are divided by the square roots of
    both pixels' sums over the image, and a pixel counts among its own neighbours.

    Args:
        iterations: of the mean field; 0 gives the probabilities back.
        position_sigma: of k1, in pixels.
        position_weight: of k1.
        bilateral_sigma: of k2, in pixels.
        colour_sigma: of k2.
        bilateral_weight: of k2.
        mode: lattice approximates the kernels in time linear in the pixels; exact sums over all
            pairs, for small images. On generated pictures of 48x64 at three settings, labels were
            equal in 99.6 % of the pixels on average and in 97.7 % at least, and marginals differed
            by 0.02 at most on average over an image.

    Raises:
        ValueError: there is no such mode, or a setting is out of its range.
    """

    iterations: Natural
    position_sigma: Positive
    position_weight: NonNegative
    bilateral_sigma: Positive
    colour_sigma: Positive
    bilateral_weight: NonNegative
    mode: Mode = "lattice"

    def __post_init__(self) -> None:
        if self.mode not in get_args(Mode):
            raise ValueError(f"mode={self.mode}; expected one of {', '.join(get_args(Mode))}")
        if min(self.position_sigma, self.bilateral_sigma, self.colour_sigma) <= 0:
            raise ValueError("position_sigma, bilateral_sigma and colour_sigma must be above 0")
        if self.iterations < 0:
            raise ValueError(f"iterations={self.iterations}; expected 0 or more")

    @property
    def protocol(self) -> dict:
        """What results call these settings."""
        return {f"crf_{name}": value for name, value in asdict(self).items()}

    def __call__(self, image: Tensor, probabilities: Tensor) -> Tensor:
        """Marginals after the last iteration; the same for the same input, whatever the threads.

        Args:
            image: (3, H, W) uint8 RGB.
            probabilities: (K, H, W), of any float type, on the device that is to compute. Those of
                0 count as 1e-30.

        Returns:
            (K, H, W) float32, strided as a channels-last image, summing to 1 over the classes.

        Raises:
            UserError: the image is too large for exact mode.
        """
        image = image.to(probabilities.device)
        kernels = self.position_kernel(image), self.bilateral_kernel(image)
        return self.mean_field(probabilities, *kernels)

    def position_kernel(self, image: Tensor) -> Kernel:
        """k1 of an image (3, H, W); depends on its size alone."""
        return self._kernel(_positions(image) / self.position_sigma)

    def bilateral_kernel(self, image: Tensor) -> Kernel:
        """k2 of an image (3, H, W) uint8."""
        colours = image.float().flatten(1).T / self.colour_sigma
        return self._kernel(torch.cat([_positions(image) / self.bilateral_sigma, colours], 1))

    def mean_field(self, probabilities: Tensor, position: Kernel, bilateral: Kernel) -> Tensor:
        """The same as a call, with kernels of that image that are there already (algorithm 1)."""
        pixels = probabilities.detach().float().clamp_min(LEAST).flatten(1)
        logits = pixels.T.contiguous().log_()
        marginals = logits.softmax(1)
        block = BLOCK * torch.get_num_threads()
        for _ in range(self.iterations):
            tables = position.spread(marginals), bilateral.spread(marginals)
            for start in range(0, len(logits), block):
                part = slice(start, start + block)
                near = position.read(tables[0], part)
                near = torch.add(logits[part], near, alpha=self.position_weight)
                near.add_(bilateral.read(tables[1], part), alpha=self.bilateral_weight)
                torch.softmax(near, 1, out=marginals[part])
        return marginals.T.unflatten(1, probabilities.shape[1:])

    def _kernel(self, features: Tensor) -> Kernel:
        if self.mode == "exact":
            return ExactKernel(features)
        lattice = Lattice(features)
        lattice.normalise()
        return lattice


class ExactKernel:
    """All pairs of points in float64, without approximation.

    Args:
        features: (N, d), each divided by its standard deviation.

    Raises:
        UserError: there are too many points.
    """

    def __init__(self, features: Tensor) -> None:
        if len(features) > MOST_EXACT:
            raise UserError(
                f"a CRF with mode=exact takes at most {MOST_EXACT} pixels, the image has "
                f"{len(features)}; use mode=lattice"
            )
        kernel = torch.cdist(features.double(), features.double()).square_().mul_(-0.5).exp_()
        scale = kernel.sum(1).rsqrt()
        self.matrix = kernel.mul_(scale).mul_(scale[:, None])

    def spread(self, values: Tensor) -> Tensor:
        """Values (N, K) as they are, in memory of their own."""
        return values.double()

    def read(self, table: Tensor, points: slice) -> Tensor:
        """Values (N, K) filtered at some of the points: (n, K) float32."""
        return (self.matrix[points] @ table).float()


def _positions(image: Tensor) -> Tensor:
    """(H W, 2) float32 x and y of an image's pixels."""
    rows, columns = (torch.arange(length, device=image.device) for length in image.shape[1:])
    return torch.cartesian_prod(rows, columns).flip(1).float()
