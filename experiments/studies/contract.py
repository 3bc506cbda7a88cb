"""What a study is: a question, a baseline, named arms, and what is to be said of them."""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Callable

from experiments.studies.plan import Lengths, Tuning
from moe.registry import Mistake

if typing.TYPE_CHECKING:  # importing the model library would slow `list` down
    from moe.experiment import Experiment


LOWER, HIGHER, EQUAL = "lower", "higher", "equal"  # what a difference may be expected to be
METRICS = ("val_loss",)  # what a study may be decided by: held-out loss, nats per token
LARGEST = 1000  # seeds of one study


@dataclasses.dataclass(frozen=True)
class Decision:
    """The rule by which the comparisons of a study are decided: paired t tests, Holm over all.

    Without `looks` they are tested once, at `alpha`. With them seeds are added until all is
    decided, and tested whenever there are so many: a look tests at what Pocock's spending function,
    alpha * ln(1 + (e - 1) t) with t = seeds / seeds of the last look, has grown by since the look
    before (Lan and DeMets 1983, Biometrika 70:659). These add up to alpha, so by the union bound
    any look says something false of any comparison at most at that rate, whatever the looks have in
    common; their correlation, which needs a normal law that few seeds do not have, is given away.

    Attributes:
      alpha: how often at most a study says of some comparison that it differs where none does; and
        as often, of some, that it is equal where it lies at the margin or beyond it.
      looks: numbers of seeds, rising.

    Raises Mistake for an alpha outside of (0, 0.5) and for looks that do not rise from two.
    """

    alpha: float = 0.05
    looks: tuple[int, ...] = ()

    def __post_init__(self):
        if not 0 < self.alpha < 0.5:
            raise Mistake(f"decision.alpha={self.alpha}: must be in (0, 0.5)")
        steps = zip((1, *self.looks), self.looks, strict=False)
        if not all(before < after for before, after in steps):
            raise Mistake(f"decision.looks={self.looks}: must rise, from two seeds on")

    def levels(self) -> tuple[float, ...]:
        """What the p values of each look must be below; of the one test where there are none."""
        spent = [0.0, *(self._spent(n / self.looks[-1]) for n in self.looks)]
        steps = zip(spent, spent[1:], strict=False)
        return tuple(after - before for before, after in steps) or (self.alpha,)

    def _spent(self, share: float) -> float:
        return self.alpha * math.log(1 + (math.e - 1) * share)

    def until(self, first: int, cap: int) -> Decision:
        """The same with looks at `first` seeds, then at half as many again each time, up to `cap`.

        Raises Mistake where a test needs more seeds, or the cap lies below them.
        """
        if first < 2:
            raise Mistake(f"--until-decided={cap}: needs two seeds to begin with, has {first}")
        if not first <= cap <= LARGEST:
            raise Mistake(f"--until-decided={cap}: must be in [{first}, {LARGEST}], from its seeds")
        looks = [first]
        while looks[-1] < cap:
            looks.append(min(cap, -(-3 * looks[-1] // 2)))
        return dataclasses.replace(self, looks=tuple(looks))


@dataclasses.dataclass(frozen=True)
class Contrast:
    """A difference between two arms that is tested besides those to the baseline.

    Contrasts of one name are a family: one sentence, one correction for their number.

    Attributes:
      name: what results.json calls the difference, in the entry of the arm.
      title: what is set against what, the opening of the sentence.
      arm, against: the loss of the first minus that of the second.
      claim: what the literature says of it.
      source: where, an arXiv id or words.
      direction: what it is expected to be, LOWER, HIGHER or EQUAL; "" only in files of before.
      size: what it came to where it was published, nats; None where no number fits.
    """

    name: str
    title: str
    arm: str
    against: str
    claim: str
    source: str = ""
    direction: str = ""
    size: float | None = None


@dataclasses.dataclass(frozen=True)
class Expectation:
    """What the difference of an arm to the baseline is expected to be.

    Attributes:
      direction, size, source: as those of a contrast.
    """

    arm: str
    direction: str
    size: float | None = None
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
      lengths: shorter lengths, and at which sizes; none for the whole alone.
      controls: arms that take a difference apart; they run when they are named, or with --arms=all.
      contrasts, scales: what is compared besides each arm with the baseline.
      expectations: what is expected of arms against the baseline, before the first step.
      metric: what it is decided by, of METRICS.
      decision: the rule by which.
      margin: below it a difference counts as none, nats; needed where one is expected to be EQUAL.
      caveats: what its numbers do not say.
      colours: the arms in the order of the colours of `experiments/figures/palette.py`; those
        that are not named follow.

    Raises Mistake where it names an arm that it does not have, or contrasts one twice by a name,
    and for a declaration that nothing could be held to.
    """

    question: str
    baseline: str
    arms: tuple[tuple[str, str], ...]
    sizes: tuple[str, ...]
    seeds: tuple[int, ...]
    build: Callable[[str, str], Experiment]
    controls: tuple[str, ...] = ()
    tuning: Tuning | None = None
    lengths: Lengths | None = None
    contrasts: tuple[Contrast, ...] = ()
    scales: tuple[Scale, ...] = ()
    caveats: tuple[Caveat, ...] = ()
    colours: tuple[str, ...] = ()
    expectations: tuple[Expectation, ...] = ()
    metric: str = "val_loss"
    decision: Decision = Decision()
    margin: float | None = None

    def __post_init__(self):
        named = {
            "baseline": (self.baseline,),
            "controls": self.controls,
            "contrasts": [arm for one in self.contrasts for arm in (one.arm, one.against)],
            "scales": [arm for one in self.scales for arm in (one.start, one.end, *one.arms)],
            "expectations": [one.arm for one in self.expectations],
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
        self._check_declared()

    def _check_declared(self) -> None:
        """Raises Mistake for a metric, margin, direction or size that nothing can be held to."""
        if self.metric not in METRICS:
            raise Mistake(f"metric={self.metric}: must be one of {', '.join(METRICS)}")
        if self.margin is not None and not 0 < self.margin < math.inf:
            raise Mistake(f"margin={self.margin}: must be above 0, in nats")
        looks = self.decision.looks
        if looks and looks[0] != len(self.seeds):
            raise Mistake(f"decision.looks={looks}: must begin at the {len(self.seeds)} seeds")
        expected = [one.arm for one in self.expectations]
        for arm in expected:
            if arm == self.baseline or expected.count(arm) > 1:
                raise Mistake(f"expectations={arm}: must name each other arm at most once")
        for one in (*self.contrasts, *self.expectations):
            here, known = f"{one.arm}: direction={one.direction}", (LOWER, HIGHER, EQUAL)
            if one.direction not in known:
                raise Mistake(f"{here}: must be one of {', '.join(known)}")
            if one.direction == EQUAL and self.margin is None:
                raise Mistake(f"{here}: needs the margin of the study, in nats")
            limit = self.margin if one.direction == EQUAL else math.inf
            signed = {LOWER: -1, HIGHER: 1}.get(one.direction, 0) * (one.size or 0)
            if one.size is not None and not (signed >= 0 and abs(one.size) <= limit):
                raise Mistake(f"{one.arm}: size={one.size}: must be {one.direction}, in nats")

    @property
    def main_arms(self) -> tuple[str, ...]:
        """The arms that run when none is named."""
        return tuple(arm for arm, _ in self.arms if arm not in self.controls)

    @property
    def colour_order(self) -> tuple[str, ...]:
        """Every arm but the baseline, which is drawn in ink, in the order of the colours."""
        order = dict.fromkeys([*self.colours, *dict(self.arms)])
        return tuple(arm for arm in order if arm != self.baseline)
