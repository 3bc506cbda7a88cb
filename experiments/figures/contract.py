"""What a figure is: a class without arguments that draws itself and writes its own caption."""

from __future__ import annotations

import typing
from typing import Protocol

from experiments.results.record import Comparison

if typing.TYPE_CHECKING:  # drawing is slow to import
    import matplotlib.figure


class Figure(Protocol):
    """One figure; it knows no arm by name, and its numbers are those of the comparison."""

    title: str

    def draw(self, comparison: Comparison) -> matplotlib.figure.Figure | None:
        """The drawing in inches; None where there is nothing to show."""

    def caption(self, comparison: Comparison) -> str:
        """What is seen, and what to look at; only asked for what was drawn."""

    def alt(self, comparison: Comparison) -> str:
        """The numbers that carry the figure, for those who do not see it."""
