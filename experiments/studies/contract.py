"""What a study is: a question, a baseline, and named arms that each make one experiment."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable

if typing.TYPE_CHECKING:  # importing the model library would slow `list` down
    from moe.experiment import Experiment


@dataclasses.dataclass(frozen=True)
class Study:
    """A comparison.

    Attributes:
      question: what it answers, one sentence.
      baseline: the arm that others are compared with, seed by seed.
      arms: (name, one line) of each.
      sizes: names of configs that it runs at.
      seeds: the seeds of a full run.
      build: (arm, size) -> the experiment, seed 0.
    """

    question: str
    baseline: str
    arms: tuple[tuple[str, str], ...]
    sizes: tuple[str, ...]
    seeds: tuple[int, ...]
    build: Callable[[str, str], Experiment]
