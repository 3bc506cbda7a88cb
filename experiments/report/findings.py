"""Sentences that the numbers of a study support, one a fact, never more."""

from collections.abc import Mapping

from experiments.results.record import (
    DIVERGED,
    HIGHER,
    LOWER,
    MISSING,
    UNCLEAR,
    Arm,
    Comparison,
    Routers,
    Share,
)
from experiments.text import interval, listing, number, probability

BASELINES = (("unigram", "unigram entropy"), ("fivegram", "5-gram model"))  # key, what it is


def findings(comparison: Comparison) -> list[str]:
    """One sentence per arm and scale, then the baselines, the desks and the load."""
    sentences = [_arm(arm, comparison) for arm in comparison.others]
    if not comparison.one_seed:
        done = [a for a in comparison.others if a.status not in (MISSING, DIVERGED)]
        for scale in comparison.declared.scales:
            shares = {arm.name: arm.scales.get(scale.name) for arm in done}
            sentences += _ratios(scale.title, shares)
    sentences += _counts(comparison) + _desks(comparison)
    return sentences + [_load(arm.name, arm.router) for arm in comparison.others if arm.router]


def _arm(arm: Arm, comparison: Comparison) -> str:
    one, base = arm.difference, comparison.baseline
    if arm.status == MISSING:
        return f"{arm.name} has no finished run."
    if arm.status == DIVERGED:
        seeds = listing([str(seed) for seed in arm.seeds_diverged])
        return f"{arm.name} is not judged: its loss became non-finite in seed {seeds}."
    if one is None:
        return f"{arm.name} has no seed in common with {base}, so nothing is compared."
    side = "below" if one.mean < 0 else "above"
    gap = f"{number(abs(one.mean))} nats per token {side} {base}"
    if comparison.one_seed:
        return f"{arm.name} ended {gap}."
    if one.sd is None:
        return f"{arm.name} ended {gap} in its one paired seed; the noise is not known."
    facts = [f"95 % interval {interval(one.low, one.high)}", f"{one.n} paired seeds"]
    if one.effect is not None:
        facts.append(f"{number(abs(one.effect), 1)} sd of the paired differences")
    what = f"{gap} ({', '.join(facts)})"
    test = f"{probability(one.p_holm)} by a paired t test"
    if one.comparisons > 1:
        test += f" with Holm's correction for {one.comparisons} comparisons"
    if one.verdict == UNCLEAR:
        return f"{arm.name} cannot be told apart from {base}: it ends {what}, {test}."
    return f"{arm.name} ends {what}: {test}."


def _ratios(what: str, shares: Mapping[str, Share | None]) -> list[str]:
    """All defined ratios in one sentence, then why the others are undefined."""
    shares = {arm: share for arm, share in shares.items() if share}
    known = [
        f"{arm} {number(share.value, 2)} ({interval(share.low, share.high, 2, False)})"
        for arm, share in shares.items()
        if share.value is not None
    ]
    sentences = []
    if known:
        sentences.append(f"{what}: {listing(known)}; 95 % intervals by Fieller's method.")
    reasons = {arm: share.reason for arm, share in shares.items() if share.reason}
    for reason in dict.fromkeys(reasons.values()):
        names = listing([arm for arm, why in reasons.items() if why == reason])
        sentences.append(f"{what}: undefined for {names}, because {reason}.")
    return sentences


def _counts(comparison: Comparison) -> list[str]:
    """Where the trained arms stand against the unigram entropy and the 5-gram model."""
    means = {name: arm.val_loss.mean for name, arm in comparison.arms.items()}
    means = {arm: mean for arm, mean in means.items() if mean is not None}
    sentences = []
    for key, name in BASELINES:
        level = comparison.baselines.get(f"{key}_nats")
        if level is None:
            continue
        below = [arm for arm, mean in means.items() if mean < level]
        which = "every arm" if len(below) == len(means) else listing(below) or "no arm"
        verb = "end" if len(below) > 1 and len(below) < len(means) else "ends"
        sentences.append(
            f"On the same held-out tokens {which} {verb} below the {name} ({number(level)} nats)."
        )
    return sentences


def _desks(comparison: Comparison) -> list[str]:
    """Desks where an arm is told apart, corrected over all arms and desks."""
    parts, count = [], 0
    for arm in comparison.others:
        differences = arm.desk_difference.items()
        desks = {d: one for d, one in differences if one and one.sd is not None}
        if not desks:
            continue
        sure = [desk for desk, one in desks.items() if one.verdict in (LOWER, HIGHER)]
        count = next(iter(desks.values())).comparisons
        told = listing(sure) if 0 < len(sure) < len(desks) else "every desk" if sure else "none"
        parts.append(f"{arm.name} on {told}")
    if not parts:
        return []
    return [
        f"By desk, after Holm's correction for {count} comparisons, told apart from "
        f"{comparison.baseline}: {'; '.join(parts)}."
    ]


def _load(arm: str, router: Routers) -> str:
    sentence, peak = f"Load in {arm}: {', '.join(router.told())}", router.peak
    if peak.share:
        sentence += (
            f"; in seed {router.shown_seed} the strongest tie of a desk to an expert is "
            f"{100 * peak.share:.0f} % of {peak.desk} to expert {peak.expert} of layer "
            f"{peak.layer} (even: {100 / router.num_experts:.1f} %)"
        )
    return sentence + "."


def open_runs(comparison: Comparison) -> list[str]:
    """One line per arm whose runs have not all finished."""
    lines = []
    for arm in comparison.arms.values():
        states = (
            ("not started", arm.seeds_absent),
            ("not finished", arm.seeds_unfinished),
            ("diverged", arm.seeds_diverged),
        )
        parts = [
            f"seed{'s' * (len(seeds) > 1)} {listing([str(s) for s in seeds])} {state}"
            for state, seeds in states
            if seeds
        ]
        if parts:
            lines.append(f"{arm.name}: {'; '.join(parts)}.")
    return lines
