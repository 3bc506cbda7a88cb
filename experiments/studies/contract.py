"""What a study is: a question, a baseline, named arms, and what is to be said of them."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable

from moe.registry import Mistake

if typing.TYPE_CHECKING:  # importing the model library would slow `list` down
    from moe.experiment import Experiment


@dataclasses.dataclass(frozen=True)
class Contrast:
    """A difference between two arms that is tested besides those to the baseline.

    Contrasts of one name are a family: one sentence, one correction for their number.

    Attributes:
      name: what results.json calls the difference, in the entry of the arm.
      title: what is set against what, the opening of the sentence.
      arm, against: the loss of the first minus that of the second.
      claim: what the literature says of it.
      source: where, as an arXiv id.
    """

    name: str
    title: str
    arm: str
    against: str
    claim: str
    source: str = ""


@dataclasses.dataclass(frozen=True)
class Scale:
    """Where arms stand on the way from one arm (0) to another (1), by their losses.

    Attributes:
      name: what results.json calls the place, in the entry of an arm.
      title: what 0 and 1 are, the opening of the sentence.
      start, end: the arms at 0 and 1.
      arms: those that are placed; all others when empty.
    """

    name: str
    title: str
    start: str
    end: str
    arms: tuple[str, ...] = ()

    def places(self, arm: str) -> bool:
        """Whether the arm is put on this scale."""
        return arm not in (self.start, self.end) and (not self.arms or arm in self.arms)


@dataclasses.dataclass(frozen=True)
class Caveat:
    """A sentence about the limits of the study, told when one of the arms has been asked for."""

    text: str
    arms: tuple[str, ...] = ()  # empty: always


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

    def steps(self, whole: int) -> int:
        """Steps of one value's training, where a run has `whole`."""
        return max(1, round(self.share * whole))


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
      tuning: what is tuned in every arm before its runs, and at which sizes; none for nothing.
      controls: arms that take a difference apart; they run when they are named, or with --arms=all.
      contrasts, scales: what is compared besides each arm with the baseline.
      caveats: what its numbers do not say.
      colours: the arms in the order of the colours of `experiments/figures/palette.py`; those
        that are not named follow.

    Raises Mistake where it names an arm that it does not have, or contrasts one twice by a name.
    """

    question: str
    baseline: str
    arms: tuple[tuple[str, str], ...]
    sizes: tuple[str, ...]
    seeds: tuple[int, ...]
    build: Callable[[str, str], Experiment]
    controls: tuple[str, ...] = ()
    tuning: Tuning | None = None
    contrasts: tuple[Contrast, ...] = ()
    scales: tuple[Scale, ...] = ()
    caveats: tuple[Caveat, ...] = ()
    colours: tuple[str, ...] = ()

    def __post_init__(self):
        named = {
            "baseline": (self.baseline,),
            "controls": self.controls,
            "contrasts": [arm for one in self.contrasts for arm in (one.arm, one.against)],
            "scales": [arm for one in self.scales for arm in (one.start, one.end, *one.arms)],
            "caveats": [arm for one in self.caveats for arm in one.arms],
            "colours": self.colours,
        }
        known = dict(self.arms)
        for field, arms in named.items():
            for arm in arms:
                if arm not in known:
                    raise Mistake(f"{field}={arm}: must be one of the arms ({', '.join(known)})")
        pairs = [(one.name, one.arm) for one in self.contrasts]
        for name, arm in pairs:
            if pairs.count((name, arm)) > 1:
                raise Mistake(f"contrasts={name}: has {arm} twice; give each its own name")

    @property
    def main_arms(self) -> tuple[str, ...]:
        """The arms that run when none is named."""
        return tuple(arm for arm, _ in self.arms if arm not in self.controls)

    @property
    def colour_order(self) -> tuple[str, ...]:
        """Every arm but the baseline, which is drawn in ink, in the order of the colours."""
        order = dict.fromkeys([*self.colours, *dict(self.arms)])
        return tuple(arm for arm in order if arm != self.baseline)
