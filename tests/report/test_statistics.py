"""Tests of the paired statistics; every expected number is worked out beside it."""

import math

import numpy as np
import pytest

from experiments.report.statistics import (
    bootstrap_interval,
    corrected,
    fieller,
    holm,
    paired,
    summary,
    t_interval,
    t_test,
)
from experiments.results.record import Summary

# 97.5 % point of Student's t, 2 degrees of freedom, where P(|T| <= t) = t / sqrt(2 + t^2) = 0.95.
T2 = 0.95 * math.sqrt(2 / (1 - 0.95**2))


def test_t_interval_with_the_closed_form_of_two_degrees():
    assert T2 == pytest.approx(4.302653, abs=1e-6)  # as tables print it
    low, high = t_interval([1.0, 2.0, 3.0])  # mean 2, sd 1, half = T2 / sqrt(3)
    assert low == pytest.approx(2 - T2 / math.sqrt(3), rel=1e-9)
    assert high == pytest.approx(2 + T2 / math.sqrt(3), rel=1e-9)
    assert t_interval([1.0]) is None


def test_summary_of_three_one_and_no_seed():
    record = summary({2: 4.58, 0: 4.60, 1: 4.62})
    assert record.mean == pytest.approx(4.60)
    assert record.sd == pytest.approx(0.02)  # sqrt((0 + 0.0004 + 0.0004) / 2)
    assert list(record.by_seed) == [0, 1, 2]
    assert summary({7: 3.0}) == Summary(n=1, mean=3.0, sd=None, by_seed={7: 3.0})
    assert summary({}).mean is None


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_summary_refuses_to_average_a_diverged_seed(bad):
    with pytest.raises(ValueError, match="finite"):
        summary({0: 4.6, 1: bad})


def test_paired_difference_by_hand():
    record = paired({0: 4.5, 1: 4.51, 2: 4.49, 5: 1.0}, {0: 4.6, 1: 4.62, 2: 4.58, 6: 9.0})
    # Differences -0.10, -0.11, -0.09: mean -0.1, sd 0.01; seeds 5 and 6 have no partner.
    assert record.n == 3
    assert record.mean == pytest.approx(-0.1)
    assert record.sd == pytest.approx(0.01)
    assert record.effect == pytest.approx(-10)
    half = T2 * 0.01 / math.sqrt(3)  # 0.0248414
    assert (record.low, record.high) == pytest.approx((-0.1 - half, -0.1 + half))
    # t = 0.1 / (0.01 / sqrt 3) = sqrt 300; p = 1 - t / sqrt(2 + t^2) = 1 - sqrt(300 / 302)
    assert record.p == pytest.approx(1 - math.sqrt(300 / 302))
    # 27 resamples: three equal draws have weight 1/27 > 2.5 %, so the ends are the extremes.
    assert (record.bootstrap_low, record.bootstrap_high) == pytest.approx((-0.11, -0.09))
    assert record.verdict == "lower"


def test_one_seed_has_no_interval_and_no_partner_no_record():
    record = paired({0: 2.0}, {0: 1.0})
    assert record.mean == 1.0
    assert [getattr(record, key) for key in ("sd", "low", "high", "p", "effect")] == [None] * 5
    assert (record.p_holm, record.comparisons) == (None, 0)
    assert record.bootstrap_low is None
    assert record.verdict == "one seed"
    assert paired({0: 2.0}, {1: 1.0}) is None


def test_the_t_test_decides_and_not_the_number_of_sds():
    zero = dict.fromkeys(range(8), 0.0)
    # sd 1, mean 2.2: t^2 = 3 * 2.2^2 = 14.52 with 2 degrees, p = 1 - sqrt(14.52 / 16.52) = 0.0625.
    record = paired({0: 1.2, 1: 2.2, 2: 3.2}, zero)
    assert record.p == pytest.approx(1 - math.sqrt(14.52 / 16.52))
    assert record.verdict == "not told apart" and record.low < 0
    # sd 1, mean 2.6: t^2 = 20.28, p = 1 - sqrt(20.28 / 22.28) = 0.046.
    assert paired({0: 1.6, 1: 2.6, 2: 3.6}, zero).verdict == "higher"
    # Four at 0.5 and four at 2.5: mean 1.5, sd sqrt(8 / 7) = 1.07, so 1.4 sd; the interval is
    # 1.5 +- 2.365 * 1.07 / sqrt 8 = 0.606 to 2.394: eight seeds tell what three could not.
    record = paired({seed: 0.5 + 2.0 * (seed % 2) for seed in range(8)}, zero)
    assert record.effect == pytest.approx(1.5 / math.sqrt(8 / 7))
    assert record.low == pytest.approx(0.6063, abs=1e-4) and record.verdict == "higher"


def test_a_family_is_judged_by_its_corrected_p():
    one = paired({0: 1.6, 1: 2.6, 2: 3.6}, dict.fromkeys(range(3), 0.0))  # p 0.046, as above
    assert (one.p_holm, one.comparisons, one.verdict) == (one.p, 1, "higher")
    two = corrected({"a": one, "b": one, "gone": None})
    assert two["a"].p_holm == pytest.approx(2 * one.p)  # 0.092
    assert (two["a"].comparisons, two["a"].verdict) == (2, "not told apart")
    assert two["gone"] is None
    single = paired({0: 2.0}, {0: 1.0})
    assert corrected({"a": one, "b": single})["a"].verdict == "higher"  # one seed is no test
    assert corrected({"b": single})["b"].verdict == "one seed"


def drawn(effect, n, comparisons, draws):
    """How often anything is told apart among differences of n seeds with sd 1, by simulation."""
    values = np.random.default_rng(n).normal(effect, 1.0, (draws, comparisons, n)).tolist()
    told = [min(holm(dict(enumerate(map(t_test, family)))).values()) < 0.05 for family in values]
    return sum(told) / draws


@pytest.mark.parametrize(("n", "power"), [(3, 0.47), (5, 0.91), (10, 1.0)])
def test_power_grows_with_seeds(n, power):
    """A true effect of 2 sd: the power of the t test at 5 % from the noncentral t distribution.

    More than twice the sd of the sample was asked for once: 0.58 at five seeds, 0.55 at ten.
    """
    assert drawn(2.0, n, 1, 2000) == pytest.approx(power, abs=4 * math.sqrt(0.25 / 2000))


@pytest.mark.parametrize("comparisons", [1, 7])
def test_where_nothing_differs_one_study_in_twenty_says_so(comparisons):
    # Independent comparisons: Holm tells one where the least p is below 0.05 / 7, so
    # 1 - (1 - 0.05 / 7)^7 = 0.0489; 4 standard errors of 2000 draws are 0.02.
    assert drawn(0.0, 4, comparisons, 2000) == pytest.approx(0.05, abs=0.02)


def test_equal_differences_are_certain_and_equal_runs_are_not_different():
    assert t_test([0.5, 0.5]) == 0.0
    assert t_test([0.0, 0.0]) == 1.0
    assert t_test([0.5]) is None
    assert paired({0: 1.0, 1: 2.0}, {0: 1.0, 1: 2.0}).verdict == "not told apart"
    assert paired({0: 1.5, 1: 2.5}, {0: 1.0, 1: 2.0}).verdict == "higher"


def test_bootstrap_enumerates_few_seeds_and_repeats_its_draw():
    # Two values: means 1, 2, 2, 3 with weight 1/4 each.
    assert bootstrap_interval([1.0, 3.0]) == (1.0, 3.0)
    # 0 0 0 0 1: the mean is Binomial(5, 1/5) / 5. P(0) = 0.8^5 = 0.328, so the low end is 0;
    # P(<= 2) = 0.942 < 0.975 <= P(<= 3) = 0.993, so the high end is 3/5.
    assert bootstrap_interval([0.0, 0.0, 0.0, 0.0, 1.0]) == pytest.approx((0.0, 0.6))
    values = [math.sqrt(prime) for prime in (2, 3, 5, 7, 11, 13, 17, 19, 23)]  # mean 3.13
    assert bootstrap_interval(values) == bootstrap_interval(values)
    low, high = bootstrap_interval(values)
    assert 2.2 < low < 3.1 < high < 4.0
    assert bootstrap_interval([1.0]) is None


def test_holm_by_hand():
    # Sorted 0.01, 0.03, 0.04: times 3, 2, 1 = 0.03, 0.06, 0.04; running maximum 0.03, 0.06, 0.06.
    adjusted = holm({"a": 0.01, "b": 0.04, "c": 0.03, "none": None})
    assert adjusted == {"a": pytest.approx(0.03), "b": 0.06, "c": 0.06, "none": None}
    assert holm({"a": 0.6, "b": 0.9}) == {"a": 1.0, "b": 1.0}
    # Two that are as small, under names that have no order: it was a TypeError.
    assert holm({("a", None): 0.01, ("a", "b"): 0.01}) == {("a", None): 0.02, ("a", "b"): 0.02}


def test_fieller_by_hand():
    top = {0: 0.10, 1: 0.11, 2: 0.09}
    bottom = {0: 0.20, 1: 0.21, 2: 0.19}
    # Variances and covariance of the means are 1e-4 / 3 each; v = T2^2 * 1e-4 / 3 = 6.17094e-4.
    # (0.04 - v) r^2 - 2 (0.02 - v) r + (0.01 - v) = 0.
    v = T2**2 * 1e-4 / 3
    root = math.sqrt((0.02 - v) ** 2 - (0.04 - v) * (0.01 - v))
    record = fieller(top, bottom)
    assert record.value == pytest.approx(0.5)
    assert record.low == pytest.approx((0.02 - v - root) / (0.04 - v))  # 0.4291
    assert record.high == pytest.approx((0.02 - v + root) / (0.04 - v))  # 0.5552
    # At each end the t interval of top - r * bottom just touches zero.
    ends = [t_interval([top[s] - record.low * bottom[s] for s in top])[0]]
    ends.append(t_interval([top[s] - record.high * bottom[s] for s in top])[1])
    assert ends == pytest.approx([0.0, 0.0], abs=1e-12)


def test_fieller_is_undefined_when_the_denominator_is_noise():
    top = {0: 0.1, 1: 0.2, 2: 0.1}
    assert fieller(top, {0: 0.1, 1: -0.1, 2: 0.2}) is None
    assert fieller(top, {0: -0.2, 1: -0.21, 2: -0.19}) is None  # beyond noise, but below zero
    assert fieller({0: 0.1}, {0: 0.2}) is None  # one seed: the noise is not known
    assert fieller({0: 0.1}, {1: 0.2}) is None
