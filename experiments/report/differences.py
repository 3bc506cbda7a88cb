"""The differences between arms, judged by the rule of the study, and what was expected of them."""

import dataclasses
from collections.abc import Mapping, Sequence

from experiments.report import decisions, statistics
from experiments.report.decisions import Finding
from experiments.results.declaration import Declaration
from experiments.results.record import (
    BASELINE,
    DIVERGED,
    HIGHER,
    LOWER,
    MISSING,
    NO_BASELINE,
    ONE_SEED,
    UNCLEAR,
    UNDECIDED,
    Arm,
    Difference,
    Outcome,
)
from experiments.studies.contract import EQUAL, Contrast, Expectation
from experiments.text import number

Arms = Mapping[str, Arm]
Key = tuple[str, str]  # an arm, and the name of a contrast or "" for the baseline


def compared(arms: Arms, declared: Declaration) -> tuple[dict[str, Arm], tuple[Outcome, ...]]:
    """The arms with difference, verdict and ratio of FLOPs to the baseline, and all contrasts.

    Beside them what came of each expectation that was declared before the first step. All
    differences are one family: what is told of a study is corrected for all that it asks.
    """
    base, rule = arms.get(declared.baseline), declared.decision
    pairs = {(one.arm, one.name): (one.arm, one.against) for one in declared.contrasts}
    pairs |= {(name, ""): (name, declared.baseline) for name in arms if name != declared.baseline}
    pairs = {key: pair for key, pair in pairs.items() if set(pair) <= set(arms)}
    raw = {key: _paired(arms[arm], arms[against]) for key, (arm, against) in pairs.items()}
    findings = _findings(raw, arms, declared)
    family = statistics.corrected(raw, rule.alpha)
    if rule.looks:
        family = {key: one and _by_looks(one, findings[key]) for key, one in family.items()}
    found = {}
    for name, arm in arms.items():
        difference = family.get((name, ""))
        flops = (arm.flops_per_token, base and base.flops_per_token)
        found[name] = dataclasses.replace(
            arm,
            difference=difference,
            flops_ratio=flops[0] / flops[1] if flops[0] and flops[1] else None,
            verdict=_verdict(arm, difference, declared.baseline),
            contrasts={what: one for (who, what), one in family.items() if who == name and what},
        )
    if not declared.beforehand:
        return found, ()
    expected = [*declared.expectations, *declared.contrasts]
    keys = {(one.arm, getattr(one, "name", "")): one for one in expected if one.direction}
    return found, tuple(
        _outcome(one, family[key], findings[key], (found, declared))
        for key, one in keys.items()
        if key in family
    )


def by_desk(arms: Arms, declared: Declaration) -> dict[str, Arm]:
    """With the differences on each desk; Holm over all arms and desks together.

    Where there are looks, all of it is one more, at the level of the last of them.
    """
    base = arms[declared.baseline].desk_loss if declared.baseline in arms else {}
    differences = {
        (name, desk): statistics.paired(summary.by_seed, base[desk].by_seed)
        for name, arm in arms.items()
        for desk, summary in arm.desk_loss.items()
        if name != declared.baseline and desk in base
    }
    differences = statistics.corrected(differences, declared.decision.levels()[-1])
    return {
        name: dataclasses.replace(
            arm,
            desk_difference={desk: one for (a, desk), one in differences.items() if a == name},
        )
        for name, arm in arms.items()
    }


def _paired(arm: Arm, other: Arm) -> Difference | None:
    """Paired difference of validation losses; None when either arm had a diverged run."""
    if arm.seeds_diverged or other.seeds_diverged:
        return None
    return statistics.paired(arm.val_loss.by_seed, other.val_loss.by_seed)


def _verdict(arm: Arm, difference: Difference | None, baseline: str) -> str:
    if arm.status in (DIVERGED, MISSING):
        return arm.status
    if arm.name == baseline:
        return BASELINE
    return difference.verdict if difference else NO_BASELINE


def _findings(
    family: Mapping[Key, Difference | None], arms: Arms, declared: Declaration
) -> dict[Key, list[Finding]]:
    """Of each comparison what every look that is complete says: one where none were planned.

    A look is complete when every arm that was asked for has ended at each of its seeds.
    """
    rule, found = declared.decision, {key: [] for key in family}
    known = {key: one.by_seed for key, one in family.items() if one is not None}
    ended = [{*arms[name].seeds_finished, *arms[name].seeds_diverged} for name in declared.arms]
    plans = [declared.planned[:n] for n in rule.looks] or [None]
    for seeds, level in zip(plans, rule.levels(), strict=True):
        if seeds is not None and not all(one.issuperset(seeds) for one in ended):
            break
        values = {
            key: [value for seed, value in by_seed.items() if seeds is None or seed in seeds]
            for key, by_seed in known.items()
        }
        for key, one in decisions.look(values, level, declared.margin).items():
            found[key].append(one)
    return found


def _by_looks(one: Difference, findings: Sequence[Finding]) -> Difference:
    """With the verdict of the looks, none before the first; the rest is of all seeds."""
    told = decisions.told(findings)
    unseen = ONE_SEED if one.p is None else UNCLEAR
    return dataclasses.replace(one, verdict=told.side if told else unseen)


def _outcome(
    expected: Contrast | Expectation,
    one: Difference | None,
    findings: Sequence[Finding],
    study: tuple[Arms, Declaration],
) -> Outcome:
    arms, declared = study
    finding = decisions.decided(findings, expected.direction)
    against = getattr(expected, "against", declared.baseline)
    effects, level = [None, None], declared.decision.alpha / max(1, one.comparisons if one else 1)
    if one is not None and one.sd:
        effects = [one.effect, expected.size and expected.size / one.sd]
    needed = [statistics.seeds_needed(effect, level) for effect in effects]
    return Outcome(
        arm=expected.arm,
        against=against,
        contrast=getattr(expected, "name", ""),
        direction=expected.direction,
        size=expected.size,
        source=expected.source,
        difference=one,
        p_equal=finding and finding.p_equal,
        verdict=finding.answer(expected.direction) if finding else UNDECIDED,
        reason=_reason(finding, expected, [arms[expected.arm], arms[against]], declared),
        seeds=finding.n if finding else 0,
        seeds_needed=needed[0],
        seeds_published=needed[1],
    )


def _reason(
    finding: Finding | None,
    expected: Contrast | Expectation,
    both: Sequence[Arm],
    declared: Declaration,
) -> str:
    """What the verdict rests on, in words."""
    diverged = [arm.name for arm in both if arm.seeds_diverged]
    if diverged:
        return f"a run of {' and of '.join(diverged)} diverged"
    if finding is None:
        return "no look is complete" if declared.decision.looks else "no seed in common"
    if finding.p is None:
        return "too few seeds for a test"
    margin = f"the margin of {number(declared.margin, 3)} nats"
    if expected.direction != EQUAL and finding.side in (LOWER, HIGHER):
        return f"told apart, {finding.side}"
    if finding.equal:
        return f"equal within {margin}"
    if expected.direction == EQUAL and finding.beyond:
        return f"beyond {margin}"
    if declared.margin is None:
        return "not told apart"
    return (
        f"neither {'beyond' if expected.direction == EQUAL else 'told apart'} nor within {margin}"
    )
