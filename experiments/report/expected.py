"""What was expected beside what was observed, as rows of a table and as sentences."""

from collections.abc import Mapping

from experiments.results.record import CONTRADICTED, SUPPORTED, UNDECIDED, Comparison, Outcome
from experiments.studies.contract import EQUAL, Decision
from experiments.text import NONE, bracketed, cited, columns, interval, listing, number, probability

NOTES: Mapping[str, str] = {  # heading of a column -> what it says
    "Comparison": "the loss of the first arm minus that of the second",
    "Expected": "the direction declared before the first step, and the published size in nats",
    "Observed": "mean paired difference and its 95 % t interval, nats per token",
    "p, Holm": "of the paired t test, corrected for all comparisons",
    "p, equal": "of the tests that it lies within the margin, corrected for all comparisons",
    "Verdict": "supported, contradicted or undecided, and never more",
    "Seeds": "that were looked at",
    "Needed": "seeds that would tell a difference of the observed size from none at 80 % power",
    "Needed, published": "the same for the published size, by the spread observed",
}
SHORT = ("Comparison", "Expected", "Observed", "Verdict", "Seeds", "Needed")  # on a terminal


def notes(comparison: Comparison) -> dict[str, str]:
    """The columns that have something to say of these arms: one seed has no spread."""
    if not comparison.one_seed:
        return dict(NOTES)
    spread = ("p, Holm", "p, equal", "Needed", "Needed, published")
    one = {"Observed": "paired difference, nats per token"}
    return {head: one.get(head, note) for head, note in NOTES.items() if head not in spread}


def rows(comparison: Comparison) -> list[dict[str, str]]:
    """One row per expectation, by the headings of NOTES."""
    return [_row(one) for one in comparison.outcomes]


def _row(one: Outcome) -> dict[str, str]:
    size = "" if one.size is None else f" {number(one.size, 3, sign=True)}"
    return {
        "Comparison": f"{one.arm} − {one.against}",
        "Expected": one.direction + size,
        "Observed": _observed(one),
        "p, Holm": _p(one.difference and one.difference.p_holm),
        "p, equal": _p(one.p_equal),
        "Verdict": one.verdict,
        "Seeds": str(one.seeds),
        "Needed": NONE if one.seeds_needed is None else str(one.seeds_needed),
        "Needed, published": NONE if one.seeds_published is None else str(one.seeds_published),
    }


def _observed(one: Outcome) -> str:
    found = one.difference
    if found is None:
        return NONE
    bounds = bracketed(found.low, found.high) if found.sd else ""
    return number(found.mean, sign=True) + bounds


def _p(p: float | None) -> str:
    return probability(p).removeprefix("p = ").removeprefix("p ")


def terminal(comparison: Comparison) -> str:
    """Aligned columns; plain hyphens for minus. Empty where nothing was declared."""
    body = [tuple(row[key] for key in SHORT) for row in rows(comparison)]
    if not body:
        return ""
    heads = tuple("observed [95 %]" if key == "Observed" else key.lower() for key in SHORT)
    lines = columns([heads, *body], left=(0, 1, 3))
    widths = [max(len(row[n]) for row in [heads, *body]) for n in range(len(heads))]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines).replace("−", "-").replace("–", "-")


def sentences(comparison: Comparison) -> list[str]:
    """How many expectations came to what, then one sentence for each."""
    if not comparison.outcomes:
        return []
    verdicts = [one.verdict for one in comparison.outcomes]
    counts = [f"{verdicts.count(one)} {one}" for one in (SUPPORTED, CONTRADICTED, UNDECIDED)]
    opening = f"Of {len(verdicts)} expectations declared before the first step: {listing(counts)}."
    return [opening, *(_sentence(one) for one in comparison.outcomes)]


def _sentence(one: Outcome) -> str:
    facts = [f"{number(one.size, 3, sign=True)} nats published"] if one.size is not None else []
    facts += [cited(one.source)] if one.source else []
    side = f"equal to {one.against}" if one.direction == EQUAL else f"{one.direction} than that of"
    side = side if one.direction == EQUAL else f"{side} {one.against}"
    because = f" ({', '.join(facts)})" if facts else ""
    return (
        f"The loss of {one.arm} was expected to be {side}{because}; {_seen(one)}: {one.verdict}, "
        f"{one.reason}."
    )


def _seen(one: Outcome) -> str:
    found = one.difference
    if found is None:
        return "nothing is compared"
    seen = f"the difference is {number(found.mean, sign=True)} nats per token"
    if found.sd is None:
        return seen
    facts = [f"95 % interval {interval(found.low, found.high)}", f"{found.n} paired seeds"]
    facts.append(probability(found.p_holm))
    if one.p_equal is not None:
        facts.append(f"{probability(one.p_equal)} by the tests for equality")
    if one.verdict == UNDECIDED and one.seeds_needed:
        facts.append(f"80 % power at this size takes {one.seeds_needed} seeds")
    return f"{seen} ({', '.join(facts)})"


def rule(comparison: Comparison) -> str:
    """By what a verdict comes about, in one sentence or two."""
    declared = comparison.declared
    text = f"{_test(declared.decision)}."
    if declared.margin is not None:
        text += (
            f" Two arms are equal where two one-sided tests, corrected alike, place the difference "
            f"within {number(declared.margin, 3)} nats."
        )
    return text


def _test(decision: Decision) -> str:
    """The rule in words."""
    test = "Paired t tests with Holm's correction for all comparisons of the study"
    if not decision.looks:
        return f"{test}, p < {decision.alpha:g}"
    looks = listing([str(n) for n in decision.looks])
    levels = listing([f"{level:.2g}" for level in decision.levels()])
    return (
        f"{test}, at {looks} seeds and there p < {levels}, which add up to {decision.alpha:g} "
        "(Lan and DeMets 1983); what a look decides stays decided"
    )
