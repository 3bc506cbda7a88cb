"""Paired comparison of arms over seeds: t and bootstrap intervals, Holm (1979), Fieller (1954).

Equality within a margin is tested by two one-sided t tests (TOST: Schuirmann 1987).
"""

import dataclasses
import itertools
import math
from collections.abc import Mapping
from typing import TypeVar

from experiments.results.record import (
    HIGHER,
    LOWER,
    ONE_SEED,
    UNCLEAR,
    Difference,
    Share,
    Summary,
)
from moe.registry import Mistake

CONFIDENCE = 0.95
SIGNIFICANT = 1 - CONFIDENCE  # a difference counts below this p, corrected for its family
EXACT_RESAMPLES = 50_000  # enumerate every bootstrap sample up to here (six seeds), draw above
DRAWN_RESAMPLES = 20_000
POWER = 0.8  # at which the seeds are counted that a difference would have needed
MOST_SEEDS = 2**13

Name = TypeVar("Name")


def summary(value_by_seed: Mapping[int, float]) -> Summary:
    """Mean and sample standard deviation over seeds; `sd` is None below two, `mean` below one.

    Values must be finite: a diverged run is the caller's to name, never a number to average.
    """
    values = list(value_by_seed.values())
    if not all(math.isfinite(value) for value in values):
        raise Mistake(f"value_by_seed={value_by_seed}: every value must be finite")
    mean = math.fsum(values) / len(values) if values else None
    return Summary(
        n=len(values),
        mean=mean,
        sd=_sd(values) if len(values) > 1 else None,
        by_seed={seed: value_by_seed[seed] for seed in sorted(value_by_seed)},
    )


def paired(
    value_by_seed: Mapping[int, float], base_by_seed: Mapping[int, float]
) -> Difference | None:
    """Difference to a baseline over the seeds that both have; None when they share none.

    `low, high` is the t interval of the mean paired difference; `bootstrap_low, bootstrap_high` is
    the percentile interval of the paired bootstrap, too narrow below about five seeds. `effect` is
    the mean over the standard deviation of the paired differences (Cohen's d_z), which tells a size
    and decides nothing; None where they do not vary. The verdict is that of the paired t test, as
    of a family of one: `corrected` judges a larger one. With one seed all but the mean is None.
    """
    shared = sorted(set(value_by_seed) & set(base_by_seed))
    if not shared:
        return None
    found = summary({seed: value_by_seed[seed] - base_by_seed[seed] for seed in shared})
    differences = list(found.by_seed.values())
    p = t_test(differences)
    low, high = t_interval(differences) or (None, None)
    bootstrap_low, bootstrap_high = bootstrap_interval(differences) or (None, None)
    return Difference(
        n=found.n,
        mean=found.mean,
        sd=found.sd,
        by_seed=found.by_seed,
        low=low,
        high=high,
        bootstrap_low=bootstrap_low,
        bootstrap_high=bootstrap_high,
        effect=found.mean / found.sd if found.sd else None,
        p=p,
        p_holm=p,
        comparisons=int(p is not None),
        verdict=verdict(found.mean, p),
    )


def verdict(mean: float, p: float | None, level: float = SIGNIFICANT) -> str:
    """`lower` or `higher` below the level, else `not told apart`; `one seed` without a p value.

    p: of the paired t test, corrected for the family of comparisons.
    """
    if p is None:
        return ONE_SEED
    if p >= level:
        return UNCLEAR
    return LOWER if mean < 0 else HIGHER


def corrected(
    family: Mapping[Name, Difference | None], level: float = SIGNIFICANT
) -> dict[Name, Difference | None]:
    """The same differences, judged as one family by Holm's correction over all of them."""
    adjusted = holm({name: one.p for name, one in family.items() if one})
    tested = sum(p is not None for p in adjusted.values())
    found: dict[Name, Difference | None] = {}
    for name, one in family.items():
        if one is not None:
            p = adjusted[name]
            judged = {"p_holm": p, "comparisons": tested, "verdict": verdict(one.mean, p, level)}
            one = dataclasses.replace(one, **judged)
        found[name] = one
    return found


def t_interval(values: list[float]) -> tuple[float, float] | None:
    """Two-sided 95 % t interval of the mean; None below two values."""
    if len(values) < 2:
        return None
    mean = math.fsum(values) / len(values)
    half = t_quantile(len(values) - 1) * _sd(values) / math.sqrt(len(values))
    return mean - half, mean + half


def t_test(values: list[float]) -> float | None:
    """Two-sided p value of mean = 0; None below two values, 1 or 0 when all values are equal."""
    from scipy.special import stdtr

    if len(values) < 2:
        return None
    mean, error = math.fsum(values) / len(values), _sd(values) / math.sqrt(len(values))
    if error == 0.0:
        return 1.0 if mean == 0.0 else 0.0
    return float(2.0 * stdtr(len(values) - 1, -abs(mean) / error))


def above(values: list[float], bound: float) -> float | None:
    """One-sided p value of mean <= bound, small where it lies above; None below two values."""
    from scipy.special import stdtr

    if len(values) < 2:
        return None
    gap, error = math.fsum(values) / len(values) - bound, _sd(values) / math.sqrt(len(values))
    if error == 0.0:
        return 0.0 if gap > 0.0 else 1.0
    return float(stdtr(len(values) - 1, -gap / error))


def within(values: list[float], margin: float) -> float | None:
    """p value of a mean that lies at the margin or beyond, on either side: two one-sided t tests.

    It is the larger of both; small where the mean lies within. None below two values.
    """
    if len(values) < 2:
        return None
    return max(above(values, -margin), above([-value for value in values], -margin))


def beyond(values: list[float], margin: float) -> float | None:
    """Two-sided p value of a mean within the margin; small where it lies beyond. None below two."""
    if len(values) < 2:
        return None
    return min(1.0, 2 * min(above(values, margin), above([-value for value in values], margin)))


def power(effect: float, n: int, level: float) -> float:
    """How often the two-sided paired t test of n seeds tells a mean of `effect` sd from zero.

    t then has the noncentral t distribution of effect * sqrt(n) and n - 1 degrees of freedom.
    """
    from scipy.special import nctdtr, stdtrit

    limit, shift = float(stdtrit(n - 1, 1 - level / 2)), abs(effect) * math.sqrt(n)
    tails = (float(nctdtr(n - 1, shift, end)) for end in (limit, -limit))
    below, other = (0.0 if math.isnan(tail) else tail for tail in tails)  # SciPy's underflow
    return 1 - below + other


def seeds_needed(effect: float | None, level: float) -> int | None:
    """The fewest seeds at which the power reaches POWER; None where MOST_SEEDS do not do."""
    low, high = 1, 2  # too few, enough
    while effect and high <= MOST_SEEDS and power(effect, high, level) < POWER:
        low, high = high, 2 * high
    if not effect or high > MOST_SEEDS:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power(effect, middle, level) >= POWER else (middle, high)
    return high


def t_quantile(degrees: int) -> float:
    """Upper quantile of Student's t that leaves half of 1 - CONFIDENCE above it."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees, 0.5 + CONFIDENCE / 2))


def bootstrap_interval(values: list[float]) -> tuple[float, float] | None:
    """Percentile interval of the bootstrap mean: every resample up to six values, else drawn.

    The draw has a fixed seed, so the same values give the same interval. None below two values.
    """
    import numpy

    n = len(values)
    if n < 2:
        return None
    if n**n <= EXACT_RESAMPLES:
        index = numpy.array(list(itertools.product(range(n), repeat=n)))
    else:
        index = numpy.random.default_rng(0).integers(0, n, (DRAWN_RESAMPLES, n))
    means = numpy.asarray(values)[index].mean(axis=1)
    tails = [0.5 - CONFIDENCE / 2, 0.5 + CONFIDENCE / 2]
    low, high = numpy.quantile(means, tails, method="inverted_cdf")
    return float(low), float(high)


def holm(p_by_name: Mapping) -> dict:
    """Holm's step-down adjusted p values; names whose p is None are not counted and stay None."""
    known = [(p, name) for name, p in p_by_name.items() if p is not None]
    tested = sorted(known, key=lambda one: one[0])
    adjusted, largest = dict.fromkeys(p_by_name), 0.0
    for rank, (p, name) in enumerate(tested):
        largest = max(largest, min(1.0, (len(tested) - rank) * p))
        adjusted[name] = largest
    return adjusted


def fieller(top_by_seed: Mapping[int, float], bottom_by_seed: Mapping[int, float]) -> Share | None:
    """Ratio of two paired means with Fieller's 95 % interval, over the seeds that both have.

    None when the ratio is undefined: fewer than two shared seeds, or a denominator that its own t
    test does not find above zero. The interval is the set of r for which the t interval of the mean
    of (top - r * bottom) holds zero; it is bounded exactly when that of the denominator does not.
    """
    shared = sorted(set(top_by_seed) & set(bottom_by_seed))
    bottom = paired({seed: bottom_by_seed[seed] for seed in shared}, dict.fromkeys(shared, 0.0))
    if bottom is None or bottom.verdict != HIGHER:
        return None
    tops = [top_by_seed[seed] for seed in shared]
    bottoms = [bottom_by_seed[seed] for seed in shared]
    n, a, b = len(shared), math.fsum(tops) / len(shared), bottom.mean
    scale = t_quantile(n - 1) ** 2 / (n * (n - 1))
    aa = scale * math.fsum((top - a) ** 2 for top in tops)
    bb = scale * math.fsum((low - b) ** 2 for low in bottoms)
    ab = scale * math.fsum((t - a) * (u - b) for t, u in zip(tops, bottoms, strict=True))
    square, cross, constant = b * b - bb, a * b - ab, a * a - aa
    root = math.sqrt(max(0.0, cross * cross - square * constant))
    low, high = (cross - root) / square, (cross + root) / square
    return Share(n=n, value=a / b, low=low, high=high)


def _sd(values: list[float]) -> float:
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))
