"""What a study trains besides its runs: grids on which arms are tuned, and shorter lengths."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from moe.registry import Mistake


@dataclasses.dataclass(frozen=True)
class Grid:
    """Values of one field that are tried in every arm that has it.

    Attributes:
      path: of the field, "optimizer.learning_rate".
      values: rising, in equal ratios; a best value at an end makes the grid longer there.
    """

    path: str
    values: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Tuning:
    """How every arm is tuned before its runs, all of them alike.

    Attributes:
      grids: one after the other, each with the best of those before it.
      sizes: at which the arms are tuned.
      seeds: of the tuning; no run of the study has them.
      share: of a run's steps that each value trains, with a learning rate that ends there.
    """

    grids: tuple[Grid, ...]
    sizes: tuple[str, ...]
    seeds: tuple[int, ...]
    share: float

    def at(self, size: str, overrides: Iterable[str]) -> Tuning | None:
        """What of it happens at a size; what --set sets is set in every arm, and not tuned."""
        fixed = {assignment.partition("=")[0] for assignment in overrides}
        grids = tuple(grid for grid in self.grids if grid.path not in fixed)
        return dataclasses.replace(self, grids=grids) if grids and size in self.sizes else None

    def steps(self, whole: int) -> int:
        """Steps of one value's training, where a run has `whole`."""
        return max(1, round(self.share * whole))


@dataclasses.dataclass(frozen=True)
class Lengths:
    """Shorter lengths at which all arms are trained besides, each with its own decay.

    Attributes:
      shares: of a run's steps, in (0, 1).
      sizes: at which they are.
    """

    shares: tuple[float, ...]
    sizes: tuple[str, ...]

    def __post_init__(self):
        if not all(0 < share < 1 for share in self.shares):
            raise Mistake(f"lengths.shares={self.shares}: must be in (0, 1)")

    def at(self, size: str) -> Lengths | None:
        """What of it happens at a size."""
        return self if size in self.sizes else None
