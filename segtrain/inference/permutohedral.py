"""High-dimensional Gaussian filtering on the permutohedral lattice.

Adams, Baek and Davis 2010, Fast High-Dimensional Filtering Using the Permutohedral Lattice,
Computer Graphics Forum 29 (2). Sums over points are weighted bags of rows, which run fast on CPU
and GPU and always add in the same order.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Lattice:
    """The vertices around a set of points, ready to filter values that lie there.

    Filtering spreads the value of a point over the d + 1 corners of its simplex (splat), blurs
    along each of the d + 1 directions of the lattice, one after another, and reads the result at
    the points (slice); section 3.1. Only vertices of simplices with a point in them are there.

    What comes out approximates the sums over all points with weights exp(-|f_i - f_j|^2 / 2). Of
    noise in 0..1 at 3000 to 4000 points, it is off by 1 to 3 % (of the norm of the exact result)
    where 2 features are a grid or normal, and by 6 % where 5 are normal. The 5 features of an image
    lie close to a surface, where it is 30 to 40 % too much throughout; normalised, it is off by 3 %
    at most with 2 features and by 3 to 9 % with 5.

    Args:
        features: (N, d) float32, each divided by its standard deviation; N points, at least one.

    Attributes:
        num_vertices: how many vertices there are, M.

    Raises:
        ValueError: the features are so large that the vertices cannot be numbered.
    """

    def __init__(self, features: Tensor) -> None:
        dims = features.shape[1]
        corner, rank, offset = _enclosing_simplex(_elevate(features))
        weights = _barycentric(offset, rank)
        keys, strides = _vertex_keys(corner, rank)
        found = _find_vertices(keys)
        self.num_vertices = len(found.keys)
        self._splat_points = found.corners.remainder(len(features)).int()
        self._splat_weights = weights.view(-1).gather(0, found.corners)
        self._splat_offsets = found.offsets.int()
        self._vertices = found.numbers.T.contiguous()
        self._slice_weights = weights.T.contiguous() * _gain(dims)
        self._neighbours = _neighbours(found, strides)
        blur = features.new_tensor([0.5, 0.25, 0.25])
        self._blur_weights = blur.expand(self.num_vertices + 1, 3).contiguous()

    def spread(self, values: Tensor) -> Tensor:
        """Splats and blurs the points' values (N, K) float32 -> (M + 1, K) of the vertices."""
        table = F.embedding_bag(
            self._splat_points,
            values.contiguous(),
            self._splat_offsets,
            mode="sum",
            per_sample_weights=self._splat_weights,
            include_last_offset=True,
        )
        for near in self._neighbours:
            table = F.embedding_bag(near, table, mode="sum", per_sample_weights=self._blur_weights)
        return table

    def read(self, table: Tensor, points: slice) -> Tensor:
        """Slices what `spread` returned at some of the points: (M + 1, K) -> (n, K)."""
        weights = self._slice_weights[points]
        return F.embedding_bag(
            self._vertices[points], table, mode="sum", per_sample_weights=weights
        )

    def normalise(self) -> None:
        """From now on filters with D^-1/2 K D^-1/2, where D holds the row sums of the kernel K."""
        ones = self._slice_weights.new_ones(len(self._vertices), 1)
        scale = self.read(self.spread(ones), slice(None)).rsqrt()
        self._slice_weights *= scale
        self._splat_weights *= scale.view(-1)[self._splat_points]


def _gain(dims: int) -> float:
    """Integral of the Gaussian over the volume of one vertex, `1.5^(d/2) / sqrt(d + 1)`."""
    return (2 * math.pi / 1.5) ** (dims / 2) * math.sqrt(dims + 1)


def _elevate(features: Tensor) -> Tensor:
    """(N, d) -> (d + 1, N) on the plane of zero sum; integers are vertices of remainder 0.

    Splat and slice by linear weights have a variance of 1 / 12 each there, the blur of 1 / 2: one
    standard deviation is sqrt(2 / 3) long (section 3.1, with lengths divided by d + 1).
    """
    dims = features.shape[1]
    basis = torch.ones(dims + 1, dims).triu()
    basis[1:].diagonal().copy_(-torch.arange(1.0, dims + 1))
    basis *= math.sqrt(2 / 3) / basis.norm(dim=0)
    # In float64, which settings that allow TF32 on GPUs leave alone.
    return (basis.to(features.device, torch.float64) @ features.T.double()).float()


def _enclosing_simplex(elevated: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The simplex around each point, from the fractions of its coordinates (section 3.1).

    Returns:
        (d + 1, N) each: int32 corner of remainder 0; int64 rank of each coordinate by its offset
        from there, 0 for the largest; float32 offset.
    """
    count = len(elevated)
    corner = elevated.floor()
    offset = elevated - corner
    rank = torch.zeros_like(elevated, dtype=torch.int8)
    for i in range(count):
        for j in range(i + 1, count):
            smaller = offset[i] < offset[j]
            rank[i] += smaller
            rank[j] += ~smaller
    # Coordinates of a vertex sum to zero, so as many are rounded up as the floors lack.
    rank += corner.sum(0).to(torch.int8)
    up = rank < 0
    rank += up.to(torch.int8) * count
    return (corner + up).int(), rank.long(), offset - up.to(offset)


def _barycentric(offset: Tensor, rank: Tensor) -> Tensor:
    """(d + 1, N) weights of the corners of remainder 0 to d; the weights of a point sum to 1."""
    ordered = torch.empty_like(offset).scatter_(0, rank, offset)
    steps = (ordered[:-1] - ordered[1:]).flip(0)
    return torch.cat([1 + ordered[-1:] - ordered[:1], steps])


def _vertex_keys(corner: Tensor, rank: Tensor) -> tuple[Tensor, Tensor]:
    """Numbers that tell the vertices of one remainder apart, and grow evenly along coordinates.

    The vertex of remainder k has the coordinates `(d + 1) q + k`, where q is that of remainder 0
    less 1 in the k coordinates of highest rank. The last follows from the others.

    Returns:
        (d + 1, N) int32 keys of the q of each corner, or int64 where they need it; (d + 1,) int64,
        by how much a key grows with each coordinate, last 0.

    Raises:
        ValueError: the features are so large that vertices cannot be numbered.
    """
    low = corner[:-1].amin(1).long() - 2
    spans = (corner[:-1].amax(1).long() + 3 - low).tolist()
    total = math.prod(spans)
    if total * len(corner) > 2**62:
        raise ValueError(f"features span {spans} cells of the lattice, too many to be numbered")
    strides = torch.tensor([*(math.prod(spans[:axis]) for axis in range(len(spans))), 0])
    strides = strides.to(corner.device)
    kind = torch.int32 if total < 2**31 else torch.int64
    steps = strides.to(kind)[:, None]
    key = ((corner[:-1] - low[:, None].int()) * steps[:-1]).sum(0, dtype=kind)
    of_rank = torch.empty_like(rank, dtype=kind).scatter_(0, rank, steps.expand(rank.shape))
    return torch.cat([key[None], key - of_rank.flip(0)[:-1].cumsum(0, dtype=kind)]), strides


class _Vertices(NamedTuple):
    """M vertices and the P = (d + 1) N corners of simplices that they are.

    They are numbered in the order in which the points come to them, so that those of neighbours in
    an image lie near one another in memory, whatever their remainder.
    """

    corners: Tensor  # (P,) int64 positions in the keys (d + 1, N), those of a vertex together
    offsets: Tensor  # (M + 2,) int64 where those of each vertex start, with one that has none
    numbers: Tensor  # (d + 1, N) int32 vertex of each corner
    keys: Tensor  # (M,) int64, ascending within each remainder; so are the next two sorted
    remainder: Tensor  # (M,) int64, ascending
    place: Tensor  # (M,) int64 number of the vertex with this key


def _find_vertices(keys: Tensor) -> _Vertices:
    """The vertices of all corners from their keys (d + 1, N)."""
    # A vertex has the same remainder in all its simplices; short sorts beat a long one.
    ordered = [torch.sort(row, stable=True) for row in keys]
    values, order = (torch.stack(part) for part in zip(*ordered, strict=True))
    first = torch.ones_like(values, dtype=torch.bool)
    first[:, 1:] = values[:, 1:] != values[:, :-1]
    starts = first.view(-1).nonzero().view(-1)
    by_place = order.view(-1)[starts].argsort(stable=True)
    itself = torch.arange(order.numel(), device=order.device)
    place = torch.empty_like(by_place).scatter_(0, by_place, itself[: len(starts)])
    counts = starts.diff(append=starts.new_tensor([order.numel()]))[by_place]
    offsets = F.pad(counts.cumsum(0), (1, 0))
    moved = (starts[by_place] - offsets[:-1]).repeat_interleave(counts)
    order += itself[: len(order), None] * order.shape[1]
    ranks = (first.view(-1).cumsum(0) - 1).view_as(order)
    numbers = torch.empty_like(keys, dtype=torch.int32)
    numbers.view(-1).scatter_(0, order.view(-1), place.int().index_select(0, ranks.view(-1)))
    return _Vertices(
        order.view(-1).gather(0, moved.add_(itself)),
        torch.cat([offsets, offsets[-1:]]),
        numbers,
        values.view(-1)[starts].long(),
        starts.div(order.shape[1], rounding_mode="floor"),
        place,
    )


def _neighbours(vertices: _Vertices, strides: Tensor) -> Tensor:
    """Each vertex with those one step up and down every direction.

    A step up along j lowers the remainder by one and raises coordinate j of q by one; from
    remainder 0 it goes to d, and all coordinates of q fall by one before.

    Args:
        vertices: M of them.
        strides: (d + 1,) int64, how keys grow with the coordinates.

    Returns:
        (d + 1, M + 1, 3) int32 numbers of vertices; M, whose neighbour is itself, where none is.
    """
    keys, remainder, place = vertices.keys, vertices.remainder, vertices.place
    count, directions = len(keys), len(strides)
    block = int(keys.max()) + int(strides.sum()) + 1
    own = remainder * block + keys
    before = own - block + (remainder == 0) * (directions * block - strides.sum())
    itself = torch.arange(count + 1, device=keys.device)
    near = []
    for stride in strides:
        wanted = before + stride
        found = torch.searchsorted(own, wanted).clamp_(max=count - 1)
        there = own.gather(0, found) == wanted
        above = torch.where(there, place.gather(0, found), count)
        up = torch.full_like(itself, count).scatter_(0, place, above)
        down = torch.full_like(itself, count).scatter_(0, up, itself)
        down[-1] = count
        near.append(torch.stack([itself, up, down], 1))
    return torch.stack(near).int()
