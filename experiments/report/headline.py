"""The sentences that answer the question of a study: arms of equal FLOPs first, then the others."""

from collections.abc import Sequence

from experiments.results.record import (
    DIVERGED,
    HIGHER,
    LOWER,
    MISSING,
    ONE_SEED,
    UNCLEAR,
    Arm,
    Comparison,
    Difference,
)
from experiments.studies.contract import Contrast, Scale
from experiments.text import interval, listing, number


def headline(comparison: Comparison) -> list[str]:
    """A few sentences, never more than the numbers support."""
    arms, base = comparison.arms, comparison.baseline
    if base not in arms or arms[base].status in (MISSING, DIVERGED):
        return [f"There is no comparison yet: {base}, the baseline, has no complete result."]
    judged = [arm for arm in comparison.others if arm.judged]
    if not judged:
        return _one_seed(comparison)
    equal = [arm for arm in judged if arm.matched]
    apart = [arm for arm in judged if not arm.matched]
    sentences = [
        _group(equal, base, "At equal FLOPs per token"),
        _group(apart, base, f"At {_costs(apart)}"),
        *(_position(equal, scale) for scale in _free_scales(comparison)),
        *_contrasts(comparison),
    ]
    return [sentence for sentence in sentences if sentence]


def _costs(arms: Sequence[Arm]) -> str:
    """How many times the FLOPs of the baseline; `other FLOPs` where that differs between arms."""
    ratios = {number(arm.flops_ratio, 2) for arm in arms if arm.flops_ratio}
    return f"{ratios.pop()} × the FLOPs" if len(ratios) == 1 else "other FLOPs per token"


def _one_seed(comparison: Comparison) -> list[str]:
    base = comparison.baseline
    seen = [arm for arm in comparison.others if arm.verdict == ONE_SEED]
    if not seen:
        return [f"Only {base} has finished, so there is nothing to compare yet."]
    equal = [arm for arm in seen if arm.matched]
    apart = [arm for arm in seen if not arm.matched]
    return [
        "One seed per arm: every difference below is a single draw, and none can be told from "
        "the noise between seeds.",
        *_draw(equal, base, "at equal FLOPs per token"),
        *_draw(apart, base, f"at {_costs(apart)}"),
    ]


def _draw(group: Sequence[Arm], base: str, where: str) -> list[str]:
    if not group:
        return []
    best = min(group, key=lambda arm: arm.difference.mean)
    gap = best.difference.mean
    side = "below" if gap < 0 else "above"
    lowest = " has the lowest loss of the other arms," if len(group) > 1 else " ends"
    return [
        f"In this draw, {where}, {best.name}{lowest} {number(abs(gap), 3)} nats per token "
        f"{side} {base}."
    ]


def _group(group: Sequence[Arm], base: str, opening: str) -> str:
    """One sentence on the arms of a group: which are below, above or not told from the baseline."""
    parts = []
    for verdict, side in ((LOWER, "below"), (HIGHER, "above")):
        chosen = [arm for arm in group if arm.verdict == verdict]
        if chosen:
            gaps = sorted(abs(arm.difference.mean) for arm in chosen)
            sizes = dict.fromkeys(number(gap, 3) for gap in (gaps[0], gaps[-1]))
            verb = "ends" if len(chosen) == 1 else "end"
            parts.append(
                f"{_names(chosen)} {verb} {' to '.join(sizes)} nats per token {side} {base}"
            )
    unclear = [arm for arm in group if arm.verdict == UNCLEAR]
    if unclear:
        parts.append(f"{_names(unclear)} cannot be told apart from {base}")
    return f"{opening}, {'; '.join(parts)}." if parts else ""


def _names(arms: Sequence[Arm]) -> str:
    return listing([arm.name for arm in arms])


def _free_scales(comparison: Comparison) -> list[Scale]:
    """The scales whose end no contrast is against: those stand in the sentence of the contrast."""
    against = {one.against for one in comparison.declared.contrasts}
    return [scale for scale in comparison.declared.scales if scale.end not in against]


def _position(equal: Sequence[Arm], scale: Scale) -> str:
    shares = {arm.name: arm.scales.get(scale.name) for arm in equal}
    known = {name: one for name, one in shares.items() if one and one.value is not None}
    if not known:
        return ""
    way = f"On the way from {scale.start} (0) to {scale.end} (1)"
    low = min(known, key=lambda name: known[name].value)
    high = max(known, key=lambda name: known[name].value)
    top, bounds = (
        number(known[high].value, 2),
        interval(known[high].low, known[high].high, 2, False),
    )
    if len(known) == 1:
        return f"{way}, {high} stands at {top} (95 % interval {bounds})."
    bottom = number(known[low].value, 2)
    return f"{way}, {low} stands at {bottom} and {high} at {top} (95 % interval {bounds})."


def _contrasts(comparison: Comparison) -> list[str]:
    """One sentence for each family of contrasts."""
    found: dict[str, list[str]] = {}
    for one in comparison.declared.contrasts:
        if one.arm in comparison.arms:
            difference = comparison.arms[one.arm].contrasts.get(one.name)
            if difference and difference.sd is not None:
                found.setdefault(one.title, []).append(_contrast(comparison, one, difference))
    return [f"{title}: {'; '.join(parts)}." for title, parts in found.items()]


def _contrast(comparison: Comparison, one: Contrast, difference: Difference) -> str:
    if difference.verdict == UNCLEAR:
        return f"{one.arm} cannot be told apart from {one.against}"
    side = "above" if difference.verdict == HIGHER else "below"
    gap = number(abs(difference.mean), 3)
    kept = "".join(
        f", keeping {number(share.value, 2)} of its gain"
        for scale in comparison.declared.scales
        if scale.end == one.against and scale.start == comparison.baseline
        if (share := comparison.arms[one.arm].scales.get(scale.name)) and share.value is not None
    )
    return f"{one.arm} ends {gap} {side} {one.against}{kept}"
