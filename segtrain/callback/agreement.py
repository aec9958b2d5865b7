"""What the processes of a training tell each other on the host, where no device is waited for."""

from typing import TypeVar

import torch
import torch.distributed as dist

T = TypeVar("T")


class Agreement:
    """Collective calls of all training processes over gloo; a single process agrees with itself."""

    def __init__(self) -> None:
        self._group: dist.ProcessGroup | None = None

    def largest(self, number: int) -> int:
        """The largest number that any process gives: the same answer on all of them."""
        if not self._connect():
            return number
        result = torch.tensor(number)
        dist.all_reduce(result, op=dist.ReduceOp.MAX, group=self._group)
        return int(result)

    def gather(self, value: T) -> list[T]:
        """The plain values that the processes give, by rank."""
        if not self._connect():
            return [value]
        values: list = [None] * dist.get_world_size()
        dist.all_gather_object(values, value, group=self._group)
        return values

    @property
    def is_shared(self) -> bool:
        """Whether there are other processes."""
        return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1

    def _connect(self) -> bool:
        """As `is_shared`; the first call connects them."""
        if not self.is_shared:
            return False
        if self._group is None:
            self._group = dist.new_group(backend="gloo")
        return True
