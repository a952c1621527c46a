"""Rows at rest: a flat sky does not pay for the grass."""

import torch
from torch import Tensor

# Of the target's mean squared error; chosen by measurement (docs/lab-notes.md).
ENOUGH = 0.5
STEPS_BETWEEN_LOOKS = 20


class Rest:
    """Which rows a step may leave out, because they are far better than the fit has to be. As the shared network moves,
    so do their errors: now and then all rows are awake for a step.

    Args:
        rows: P.
        target: mean squared error of the signal at which the fit ends.
        device: of the rows.

    Attributes:
        awake: `[P]` bool, the rows that the next step sees.
        errors: `[P]`, sums of squares when each row was last seen.
    """

    def __init__(self, rows: int, target: float, device: torch.device) -> None:
        self._enough = ENOUGH * target
        self.awake = torch.ones(rows, dtype=torch.bool, device=device)
        self.errors = torch.zeros(rows, dtype=torch.float64, device=device)

    def see(self, errors: Tensor, own: Tensor) -> Tensor:
        """Take the errors `[P]` of the rows awake, of `own` `[P]` numbers each; some may rest from now on.

        Returns those of all rows, `[P]`.
        """
        self.errors = torch.where(self.awake, errors, self.errors)
        self.awake = self.awake & (self.errors > self._enough * own)
        return self.errors

    def wake(self) -> None:
        """Let the next step see all rows."""
        self.awake = torch.ones_like(self.awake)
