"""The section of the page that says how sure each difference is: tests, ratios, every seed."""

from experiments.report.compare import LEARNED
from experiments.report.page.markup import table
from experiments.text import interval, number, probability

RULE = (
    "<p>Arms are compared seed by seed: the same seed means the same order of training data. A "
    "difference counts as beyond seed noise when it exceeds twice the standard deviation of the "
    "paired differences <em>and</em> the 95&nbsp;% t interval of their mean leaves out zero. "
    "Beside it stand the p value of the paired t test, Holm’s correction for the number of "
    "comparisons with the same arm, and the paired bootstrap interval, which is too narrow below "
    "about five seeds.</p>"
)
RATIOS = (
    "<p>Position p is how far an arm has come from the baseline (0) to dense_total (1); hash share "
    "s is the part of top1’s gain over the baseline that a fixed table keeps. Both are ratios of "
    "differences: the interval is Fieller’s, and a ratio whose denominator is not beyond seed "
    "noise is left undefined.</p>"
)


def certainty(record: dict) -> str:
    """The rule, the paired differences with their tests, the ratios, and the loss of every seed."""
    return RULE + _differences(record) + _ratios(record) + _seeds(record)


def _differences(record: dict) -> str:
    arms, base = record["arms"], record["baseline"]
    found = [(arm, base, arms[arm]["difference"]) for arm in record["arm_order"]]
    found += [(arm, LEARNED, arms[arm].get("difference_to_learned")) for arm in record["arm_order"]]
    found = [(arm, other, one) for arm, other, one in found if one]
    if not found:
        return "<p>No arm shares a finished seed with the baseline yet.</p>"
    ends = [one[key] for *_, one in found for key in ("low", "mean", "high")]
    reach = max(abs(end) for end in ends if end is not None)
    lines = [
        [
            f"{arm} − {other}",
            _forest(one, reach),
            number(one["mean"], sign=True),
            interval(one),
            interval({"low": one["bootstrap_low"], "high": one["bootstrap_high"]}),
            number(one["threshold"]),
            probability(one["p"]).removeprefix("p = ").removeprefix("p "),
            probability(one["p_holm"]).removeprefix("p = ").removeprefix("p "),
            one["verdict"],
        ]
        for arm, other, one in found
    ]
    heads = ["Pair", "Interval", "Difference", "95 % t", "95 % bootstrap", "2 sd", "p", "p, Holm"]
    title = "Paired differences in validation loss, nats per token"
    return table(title, [*heads, "Verdict"], lines, words=("Interval", "Verdict"))


def _forest(one: dict, reach: float) -> str:
    """A small plot of the interval around zero; decoration, as the numbers stand beside it."""
    if not reach:
        return ""

    def x(value: float) -> str:
        return f"{55 + 51 * value / reach:.1f}"

    line = ""
    if one["low"] is not None:
        line = f'<line x1="{x(one["low"])}" x2="{x(one["high"])}" y1="8" y2="8" class="bar"/>'
    return (
        '<svg class="forest" viewBox="0 0 110 16" aria-hidden="true">'
        f'<line x1="55" x2="55" y1="0" y2="16" class="zero"/>{line}'
        f'<circle cx="{x(one["mean"])}" cy="8" r="3"/></svg>'
    )


def _ratios(record: dict) -> str:
    lines = []
    for key, name in (("position", "position p"), ("hash_share", "hash share s")):
        for arm in record["arm_order"]:
            share = record["arms"][arm].get(key)
            if share:
                note = share["reason"] or f"{share['n']} paired seeds"
                bounds = interval(share, 2, sign=False)
                lines.append([f"{name}, {arm}", number(share["value"], 2), bounds, note])
    if not lines:
        return ""
    heads = ["Ratio", "Value", "95 % interval", "Note"]
    return RATIOS + table("Ratios of differences", heads, lines, words=("Note",))


def _seeds(record: dict) -> str:
    arms = record["arms"]
    seeds = sorted(
        {seed for e in arms.values() for seed in e["seeds_finished"] + e["seeds_diverged"]}
    )
    lines = []
    for arm in record["arm_order"]:
        losses, diverged = arms[arm]["val_loss"]["by_seed"], arms[arm]["seeds_diverged"]
        cells = ["diverged" if s in diverged else number(losses.get(str(s)), 5) for s in seeds]
        lines.append([arm, *cells])
    heads = ["Arm", *(f"seed {seed}" for seed in seeds)]
    return table("Validation loss of every seed, nats per token", heads, lines)
