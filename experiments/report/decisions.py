"""What the rule of a study says of its comparisons: all at one look, or at looks in turn."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeVar

from experiments.report import statistics
from experiments.results.record import CONTRADICTED, HIGHER, LOWER, SUPPORTED, UNDECIDED
from experiments.studies.contract import EQUAL

Name = TypeVar("Name")


class Finding(NamedTuple):
    """One comparison at one look; p values after Holm's correction, None where nothing is tested.

    Attributes:
      n: paired seeds.
      side: LOWER or HIGHER where the paired t test tells it apart, else the verdict that says not.
      equal: whether it is shown to lie within the margin.
      beyond: whether it is shown to lie beyond it.
      p, p_equal, p_beyond: of these three tests, each corrected for its own kind.
    """

    n: int
    side: str
    equal: bool
    beyond: bool
    p: float | None
    p_equal: float | None
    p_beyond: float | None

    def answer(self, direction: str) -> str:
        """What it says of an expectation; a difference on the expected side is looked for first."""
        if direction == EQUAL:
            return SUPPORTED if self.equal else CONTRADICTED if self.beyond else UNDECIDED
        if self.side == direction:
            return SUPPORTED
        return CONTRADICTED if self.equal or self.side in (LOWER, HIGHER) else UNDECIDED


def look(
    family: Mapping[Name, Sequence[float]], level: float, margin: float | None
) -> dict[Name, Finding]:
    """Tests all comparisons of a study at a level, each given by its paired differences, nats.

    Of each kind of test the p values are corrected over all comparisons (Holm 1979), so that some
    comparison is called different where it is none, or equal where it lies at the margin, at most
    at the rate of the level, for either.
    """
    values = {name: list(differences) for name, differences in family.items()}
    p = statistics.holm({name: statistics.t_test(one) for name, one in values.items()})
    inside = outside = dict.fromkeys(values)
    if margin is not None:
        inside = {name: statistics.within(one, margin) for name, one in values.items()}
        outside = {name: statistics.beyond(one, margin) for name, one in values.items()}
        inside, outside = statistics.holm(inside), statistics.holm(outside)
    return {
        name: Finding(
            n=len(one),
            side=statistics.verdict(sum(one), p[name], level),
            equal=inside[name] is not None and inside[name] < level,
            beyond=outside[name] is not None and outside[name] < level,
            p=p[name],
            p_equal=inside[name],
            p_beyond=outside[name],
        )
        for name, one in values.items()
    }


def told(findings: Sequence[Finding]) -> Finding | None:
    """The first look that tells a comparison apart, which later ones do not take back; else last.

    None without any.
    """
    sure = (one for one in findings if one.side in (LOWER, HIGHER))
    return next(sure, findings[-1] if findings else None)


def decided(findings: Sequence[Finding], direction: str) -> Finding | None:
    """The first look that decides an expectation, which later ones do not take back; else last.

    None without any.
    """
    sure = (one for one in findings if one.answer(direction) != UNDECIDED)
    return next(sure, findings[-1] if findings else None)
