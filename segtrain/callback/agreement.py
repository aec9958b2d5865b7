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
        if not self._connected():
            return number
        result = torch.tensor(number)
        dist.all_reduce(result, op=dist.ReduceOp.MAX, group=self._group)
        return int(result)

    def gather(self, value: T) -> list[T]:
        """The plain values that the processes give, by rank."""
        if not self._connected():
            return [value]
        values: list = [None] * dist.get_world_size()
        dist.all_gather_object(values, value, group=self._group)
        return values

    def _connected(self) -> bool:
        """Whether there are other processes; the first call connects them."""
        if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
            return False
        if self._group is None:
            self._group = dist.new_group(backend="gloo")
        return True
