"""What a kernel is given, a block of samples, and what it gives back: errors and gradients.

Every kernel has functions as those of `eager.py`. It may be faster than those, never other than those: its gradients
are held against the eager ones in float64 (tests/kernels.py).
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

# Partitions, by their places: consecutive ones, or `[B]`.
Rows = slice | Tensor


@dataclass(frozen=True)
class Block:
    """Samples of some partitions.

    Attributes:
        rows: B partitions.
        x: `[B, N, D]`, what the shared network sees; `[1, N, D]` if that is the same for all partitions.
        x_local: `[B, N, D]` or `[1, N, D]`, what local networks see instead, or None.
        target: `[B, N, C]` in [-1, 1].
        weight: `[B, N, 1]`, of the squared errors: 0 where there is no sample; None if all are there.
        own: `[B, N, 1]`, or `[1, N, 1]` if alike, 1 where the partition owns the sample and 0 in its halo; None if
            `weight` says it all.
        shared_features: what a shared network that does not move contributes at each depth, if that is known already.
        fitted: partitions of the signal that it is of, None: B; how sums are cut goes by these, so that a row's do not
            depend on how many others are evaluated beside it.
    """

    rows: Rows
    x: Tensor
    x_local: Tensor | None
    target: Tensor
    weight: Tensor | None
    own: Tensor | None
    shared_features: list[Tensor | None] | None = None
    fitted: int | None = None

    @property
    def nbytes(self) -> int:
        tensors = (self.x, self.x_local, self.target, self.weight, self.own, *(self.shared_features or ()))
        return sum(tensor.nbytes for tensor in tensors if tensor is not None)

    def parts(self, samples: int) -> Iterator["Block"]:
        """The same samples, at most so many at a time.

        >>> block = Block(slice(3, 6), torch.zeros(1, 5, 2), None, torch.zeros(3, 5, 1), None, None)
        >>> [(part.rows.tolist(), part.target.shape[1]) for part in block.parts(10)]
        [([3, 4], 5), ([5], 5)]
        """
        rows = torch.arange(self.rows.start, self.rows.stop) if isinstance(self.rows, slice) else self.rows
        columns = self.target.shape[1]
        wide = min(columns, samples)
        for first, start in itertools.product(range(0, len(rows), samples // wide), range(0, columns, wide)):
            some = slice(first, first + samples // wide)

            def cut(tensor: Tensor, axis: int = 1, some: slice = some, start: int = start) -> Tensor:
                return tensor[some if len(tensor) > 1 else slice(None)].narrow(axis, start, min(wide, columns - start))

            optional = {"x_local": self.x_local, "weight": self.weight, "own": self.own}
            known: Any = {name: cut(tensor) for name, tensor in optional.items() if tensor is not None}
            if self.shared_features is not None:
                known["shared_features"] = [part if part is None else cut(part, 2) for part in self.shared_features]
            yield replace(self, rows=rows[some], x=cut(self.x), target=cut(self.target), **known)


class Gradients(NamedTuple):
    """What a block adds to a step.

    Attributes:
        errors: `[B]`, sums of the squared errors of the samples that each partition owns.
        rows: `[B, K]`, the loss differentiated by the block's rows.
        shared: the same by each tensor of the shared network, in its order; empty where that does not learn.
    """

    errors: Tensor
    rows: Tensor
    shared: list[Tensor]
