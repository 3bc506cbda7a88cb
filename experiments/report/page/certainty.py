"""The section of the page that says how sure each difference is: tests, ratios, every seed."""

from experiments.report.page.markup import Html, bullets, table
from experiments.results.record import Comparison, Difference
from experiments.studies.contract import Decision
from experiments.text import cited, interval, listing, number, probability

RULE = (
    "<p>Arms are compared seed by seed: the same seed means the same order of training data. Two "
    "arms are told apart when the p value of a paired t test, with Holm’s correction for all "
    "comparisons of this table, is below {level}; an interval is that of one comparison alone, so "
    "it can leave out zero where the corrected test does not tell. Beside them stand the effect, "
    "which is the mean difference over the standard deviation of the paired differences, and the "
    "paired bootstrap interval, which is too narrow below about five seeds.</p>"
)
RATIOS = (
    "<p>Each of these is a ratio of differences in loss: how far an arm has come on the way from "
    "one arm (0) to another (1). The interval is Fieller’s, and a ratio whose denominator "
    "cannot be told from zero is left undefined.</p>"
)


def certainty(comparison: Comparison) -> str:
    """The rule, the paired differences with their tests, the ratios, and the loss of every seed.

    Nothing where no arm has a second seed.
    """
    if comparison.one_seed:
        return ""
    parts = (_differences, _claims, _ratios, _seeds)
    return _rule(comparison) + "".join(part(comparison) for part in parts)


def _rule(comparison: Comparison) -> str:
    decision = comparison.declared.decision
    looks = listing([f"{level:.2g} at {n} seeds" for n, level in _looks(decision)])
    return RULE.format(level=looks or f"{decision.alpha:g}")


def _looks(decision: Decision) -> list[tuple[int, float]]:
    return list(zip(decision.looks, decision.levels(), strict=False))


def _differences(comparison: Comparison) -> str:
    arms, base = comparison.arms, comparison.baseline
    found = [(arm.name, base, arm.difference) for arm in comparison.others]
    found += [
        (one.arm, one.against, arms[one.arm].contrasts.get(one.name))
        for one in comparison.declared.contrasts
        if one.arm in arms
    ]
    found = [(arm, other, one) for arm, other, one in found if one]
    if not found:
        return "<p>No arm shares a finished seed with the baseline yet.</p>"
    ends = [end for *_, one in found for end in (one.low, one.mean, one.high)]
    reach = max(abs(end) for end in ends if end is not None)
    lines = [
        [
            f"{arm} − {other}",
            _forest(one, reach),
            number(one.mean, sign=True),
            interval(one.low, one.high),
            interval(one.bootstrap_low, one.bootstrap_high),
            number(one.effect, 1, sign=True),
            probability(one.p).removeprefix("p = ").removeprefix("p "),
            probability(one.p_holm).removeprefix("p = ").removeprefix("p "),
            one.verdict,
        ]
        for arm, other, one in found
    ]
    heads = [
        "Pair",
        "Interval",
        "Difference",
        "95 % t",
        "95 % bootstrap",
        "Effect, sd",
        "p",
        "p, Holm",
    ]
    title = "Paired differences in validation loss, nats per token"
    return table(title, [*heads, "Verdict"], lines, words=("Interval", "Verdict"))


def _forest(one: Difference, reach: float) -> str:
    """A small plot of the interval around zero; decoration, as the numbers stand beside it."""
    if not reach:
        return ""

    def x(value: float) -> str:
        return f"{55 + 51 * value / reach:.1f}"

    line = ""
    if one.low is not None:
        line = f'<line x1="{x(one.low)}" x2="{x(one.high)}" y1="8" y2="8" class="bar"/>'
    return Html(
        '<svg class="forest" viewBox="0 0 110 16" aria-hidden="true">'
        f'<line x1="55" x2="55" y1="0" y2="16" class="zero"/>{line}'
        f'<circle cx="{x(one.mean)}" cy="8" r="3"/></svg>'
    )


def _claims(comparison: Comparison) -> str:
    """What the literature says of the contrasts at hand."""
    claims = {
        f"{one.title}: {one.claim}" + (f" ({cited(one.source)})." if one.source else ".")
        for one in comparison.declared.contrasts
        if one.arm in comparison.arms and one.against in comparison.arms
    }
    return f"<p>Claimed in the literature:</p>{bullets(sorted(claims))}" if claims else ""


def _ratios(comparison: Comparison) -> str:
    lines, titles = [], []
    for scale in comparison.declared.scales:
        for arm in comparison.arms.values():
            share = arm.scales.get(scale.name)
            if share:
                note = share.reason or f"{share.n} paired seeds"
                bounds = interval(share.low, share.high, 2, sign=False)
                name = f"{scale.name.replace('_', ' ')}, {arm.name}"
                lines.append([name, number(share.value, 2), bounds, note])
                titles.append(f"{scale.name.replace('_', ' ')}: {scale.title}.")
    if not lines:
        return ""
    heads = ["Ratio", "Value", "95 % interval", "Note"]
    meanings = bullets(list(dict.fromkeys(titles)))
    return RATIOS + meanings + table("Ratios of differences", heads, lines, words=("Note",))


def _seeds(comparison: Comparison) -> str:
    arms = comparison.arms.values()
    seeds = sorted({seed for arm in arms for seed in arm.seeds_finished + arm.seeds_diverged})
    lines = []
    for arm in arms:
        losses, diverged = arm.val_loss.by_seed, arm.seeds_diverged
        cells = ["diverged" if s in diverged else number(losses.get(s), 5) for s in seeds]
        lines.append([arm.name, *cells])
    heads = ["Arm", *(f"seed {seed}" for seed in seeds)]
    return table("Validation loss of every seed, nats per token", heads, lines)
