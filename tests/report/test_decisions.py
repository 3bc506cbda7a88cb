"""Tests of how a study is decided: equality, power, looks, and how often it says what is not so."""

import math

import numpy as np
import pytest

from experiments.report import decisions
from experiments.report.statistics import (
    above,
    beyond,
    paired,
    power,
    seeds_needed,
    t_test,
    within,
)
from experiments.studies.contract import Decision
from moe.registry import Mistake

STUDIES = 2000
ARMS = 5


def tail(square):
    """P(T > t) of Student's t with 2 degrees of freedom, from t^2: 1/2 - t / (2 sqrt(2 + t^2))."""
    return 0.5 - math.sqrt(square / (2 + square)) / 2


def test_the_paired_t_test_of_students_own_example():
    """Student 1908, Biometrika 6:1: hours of sleep that ten patients gained by two drugs."""
    one = (0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0)
    two = (1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4)
    # Differences 1.2 2.4 1.3 1.3 0 1 1.8 0.8 4.6 1.4: sum 15.8, squares 38.58, mean 1.58, variance
    # (38.58 - 10 * 1.58^2) / 9 = 1.5129, t = 1.58 / sqrt(0.15129) = 4.0621; books have p 0.00283.
    found = paired(dict(enumerate(two)), dict(enumerate(one)))
    assert found.mean / (found.sd / math.sqrt(10)) == pytest.approx(4.0621, abs=1e-4)
    assert found.p == pytest.approx(0.002833, abs=1e-6)
    assert (found.low, found.high) == pytest.approx((0.70, 2.46), abs=5e-3)


def test_equality_within_a_margin_by_hand():
    # Mean 0.01, sd 0.01, error 0.01 / sqrt 3. To the upper margin of 0.03 it is 0.02, t^2 = 12; to
    # the lower one 0.04, t^2 = 48: the larger of both p values counts.
    values = [0.02, 0.01, 0.00]
    assert above(values, -0.03) == pytest.approx(tail(48))  # 0.0102
    assert within(values, 0.03) == pytest.approx(tail(12))  # 0.0371
    assert within([-value for value in values], 0.03) == pytest.approx(tail(12))
    # Mean 0.05 is 0.02 beyond the margin: t^2 = 12, of two sides.
    assert beyond([0.06, 0.05, 0.04], 0.03) == pytest.approx(2 * tail(12))
    assert beyond([-0.06, -0.05, -0.04], 0.03) == pytest.approx(2 * tail(12))
    assert beyond(values, 0.03) == 1.0 and within([0.06, 0.05, 0.04], 0.03) > 0.9
    assert within([0.1], 0.3) is beyond([0.1], 0.3) is above([0.1], 0) is None
    assert (within([0.01, 0.01], 0.03), within([0.03, 0.03], 0.03)) == (0.0, 1.0)
    assert (beyond([0.05, 0.05], 0.03), beyond([0.03, 0.03], 0.03)) == (0.0, 1.0)


def test_seeds_that_a_difference_would_have_needed():
    """The tables of Cohen 1988 and G*Power: of effects 0.2, 0.5, 0.8 at two-sided 5 %."""
    assert [seeds_needed(effect, 0.05) for effect in (0.2, 0.5, -0.8)] == [199, 34, 15]
    assert power(0.5, 33, 0.05) < 0.8 <= power(0.5, 34, 0.05)
    assert power(0.0, 9, 0.05) == pytest.approx(0.05)
    assert [seeds_needed(effect, 0.05) for effect in (None, 0.0, 0.001)] == [None] * 3
    assert seeds_needed(1e6, 0.05) == 2 and seeds_needed(10, 0.05) == 3


def test_looks_spend_what_there_is_and_no_more():
    rule = Decision(looks=(3, 6, 12))
    # ln(1 + (e - 1) t) at t = 1/4, 1/2, 1 is 0.357374, 0.620115, 1: of 0.05 they spend the steps.
    assert rule.levels() == pytest.approx((0.017869, 0.013137, 0.018994), abs=1e-6)
    assert sum(Decision(0.1, (2, 3, 4, 9)).levels()) == pytest.approx(0.1)
    assert Decision().levels() == (0.05,)
    # Half as many again: 3, 4.5, 7.5, 12.
    assert Decision().until(3, 12).looks == (3, 5, 8, 12)
    assert Decision().until(3, 13).looks == (3, 5, 8, 12, 13) and Decision().until(4, 4).looks == (
        4,
    )


@pytest.mark.parametrize(
    ("first", "cap", "line"),
    [
        (1, 9, "--until-decided=9: needs two seeds to begin with, has 1"),
        (3, 2, r"--until-decided=2: must be in \[3, 1000\]"),
        (3, 1001, r"--until-decided=1001: must be in \[3, 1000\]"),
    ],
)
def test_looks_that_cannot_be(first, cap, line):
    with pytest.raises(Mistake, match=line):
        Decision().until(first, cap)
    for bad in ({"alpha": 0.5}, {"alpha": 0.0}, {"looks": (3, 3)}, {"looks": (1, 2)}):
        with pytest.raises(Mistake, match="^decision"):
            Decision(**bad)


def test_an_expectation_is_answered_by_side_and_margin():
    def answers(values, direction):
        (found,) = decisions.look({"a": values}, 0.05, 0.03).values()
        return found.answer(direction)

    low, like = [-0.10, -0.11, -0.09], [0.001, 0.000, -0.001]
    small, wide = [-0.010, -0.011, -0.009], [-0.10, 0.11, 0.02]  # within, and no test tells it
    want = {
        "lower": ("supported", "contradicted", "supported", "undecided"),
        "higher": ("contradicted", "contradicted", "contradicted", "undecided"),
        "equal": ("contradicted", "supported", "supported", "undecided"),
    }
    for direction, verdicts in want.items():
        found = tuple(answers(values, direction) for values in (low, like, small, wide))
        assert found == verdicts, direction
    (alone,) = decisions.look({"a": [0.1]}, 0.05, 0.03).values()
    assert (alone.side, alone.answer("lower"), alone.answer("equal")) == (
        "one seed",
        "undecided",
        "undecided",
    )


def test_a_family_is_corrected_in_each_kind_of_test():
    values = [0.02, 0.01, 0.00]  # p within 0.03: 0.0371
    found = decisions.look({"a": values, "b": values}, 0.05, 0.03)
    assert found["a"].p == pytest.approx(2 * t_test(values))
    assert found["a"].p_equal == pytest.approx(2 * tail(12)) and not found["a"].equal
    assert decisions.look({"a": values}, 0.05, 0.03)["a"].equal
    assert decisions.look({"a": values}, 0.05, None)["a"].p_equal is None


def test_what_a_look_decides_stays_decided():
    one, two = (decisions.look({"a": v}, 0.05, 0.03)["a"] for v in ([-0.1, -0.11], [-0.1, 0.3]))
    assert (one.side, two.side) == ("lower", "not told apart")
    assert decisions.told([two, one, two]) == one and decisions.told([two, two]) == two
    assert decisions.decided([two, one, two], "higher") == one and decisions.told([]) is None


def said(shifts, rule, margin=None, stays=True):
    """How often a study says of some arm that it differs, and that it is equal; seeds it took.

    shifts: true differences of the arms to a baseline of the same noise, whose sd is 1. A study
    ends where the look has decided all, as `run --until-decided` does.
    """
    draws = np.random.default_rng(11).normal(0, 1, (STUDIES, ARMS + 1, rule.looks[-1]))
    values = draws[:, 1:] - draws[:, :1] + np.asarray(shifts)[:, None]
    apart, equal, seeds = 0, 0, 0
    for study in values.tolist():
        looks = []
        for n, level in zip(rule.looks, rule.levels() if stays else [0.05] * 9, strict=False):
            family = {arm: of_arm[:n] for arm, of_arm in enumerate(study)}
            looks.append(decisions.look(family, level, margin))
            last = [decisions.decided([look[arm] for look in looks], "lower") for arm in family]
            if all(one.answer("lower") != "undecided" for one in last):
                break
        null = [arm for arm, shift in enumerate(shifts) if not shift]
        edge = [arm for arm, shift in enumerate(shifts) if shift]
        apart += any(look[arm].side in ("lower", "higher") for look in looks for arm in null)
        equal += any(look[arm].equal for look in looks for arm in edge)
        seeds += n
    return apart / STUDIES, equal / STUDIES, seeds / STUDIES


def test_looks_do_not_raise_the_rate_of_false_differences():
    """2,000 studies of five arms that do not differ from the baseline, to at most 12 seeds."""
    rule = Decision().until(3, 12)
    assert 0.01 < said([0.0] * ARMS, rule)[0] <= 0.05
    assert said([0.0] * ARMS, rule, stays=False)[0] > 0.07  # who looks as often at 5 % says more


def test_looks_do_not_raise_the_rate_of_false_equality():
    """The same where each arm lies at the margin, and where some do and the others do not differ.

    A margin of 4 sd of a run, so that equality can be shown at all.
    """
    rule = Decision().until(3, 12)
    assert 0.01 < said([4.0] * ARMS, rule, 4.0)[1] <= 0.05
    apart, equal, seeds = said([4.0, 4.0, 0.0, 0.0, 0.0], rule, 4.0)
    assert apart <= 0.05 and equal <= 0.05 and 3 < seeds < 12
