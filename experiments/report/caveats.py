"""What the numbers of a study do not say: limits that hold for every sentence of its report."""

from experiments.report.compare import HASH, TOTAL, matched
from experiments.report.findings import NOISE_SEEDS
from experiments.text import listing, number


def caveats(record: dict) -> list[str]:
    """One line per limit, each only where it applies to the runs at hand."""
    arms = record["arms"]
    lines = [_learning_rate(arms), _seeds(arms), _scope()]
    if any(arm.startswith(HASH) for arm in arms):
        lines.append(
            "The hash arms have no learned gate on their experts' outputs, so part of their "
            "distance to the learned routers is the gate, not the choice of expert."
        )
    ratio = arms.get(TOTAL, {}).get("flops_ratio")
    if ratio:
        lines.append(
            f"{TOTAL} costs {number(ratio, 2)} × the FLOPs per token of {record['baseline']}; it "
            "bounds what the parameters could give, it is not a rival at equal cost."
        )
    return [line for line in [*lines, *_unequal(record), *_not_causal(arms)] if line]


def _learning_rate(arms: dict) -> str:
    rates = {arm: entry["curve"]["peak_learning_rate"] for arm, entry in arms.items()}
    rates = {arm: rate for arm, rate in rates.items() if rate is not None}
    if not rates:
        return "The learning rate was not recorded; nothing says that it suits every arm."
    if len(set(rates.values())) > 1:
        each = listing([f"{arm} {rate:g}" for arm, rate in rates.items()])
        return f"The highest learning rate differs between arms ({each})."
    return (
        f"The learning rate is the same for every arm (highest {next(iter(rates.values())):g}), "
        "not tuned per arm; the best rate can differ between dense and sparse arms."
    )


def _seeds(arms: dict) -> str:
    counts = [len(entry["seeds_finished"]) for entry in arms.values() if entry["seeds_finished"]]
    low, high = min(counts), max(counts)
    seeds = f"{low} seed{'s' * (low > 1)}" if low == high else f"{low} to {high} seeds"
    if high == 1:
        return "One seed per arm: no interval can be given, and an outlier cannot be recognised."
    few = (
        f"; with fewer than {NOISE_SEEDS} a single outlier run is hard to recognise and the "
        "intervals are wide"
    )
    return f"{seeds} per arm{few if low < NOISE_SEEDS else ''}."


def _scope() -> str:
    return (
        "A seed sets the initial weights and the order of the training data; the held-out text is "
        "fixed. The intervals hold the noise between seeds, not that of the choice of text, model "
        "size or training length."
    )


def _unequal(record: dict) -> list[str]:
    """Arms whose FLOPs or training tokens are not those of the baseline."""
    arms, base = record["arms"], record["baseline"]
    tokens = arms.get(base, {}).get("tokens")
    lines = []
    for arm, entry in arms.items():
        if entry["flops_ratio"] and not matched(entry) and arm != TOTAL:
            lines.append(f"{arm} costs {number(entry['flops_ratio'], 3)} × the FLOPs of {base}.")
        if tokens and entry["tokens"] and entry["tokens"] != tokens:
            lines.append(
                f"{arm} was trained on {entry['tokens']:,} tokens and {base} on {tokens:,}: their "
                "difference is not one at equal data."
            )
    return lines


def _not_causal(arms: dict) -> list[str]:
    """Arms whose router looks at later tokens: at evaluation, or in training alone."""
    lines = []
    for arm, entry in arms.items():
        router = entry["router"]
        if router and not router["causal"]:
            lines.append(
                f"{arm} routes with knowledge of later tokens (not causal): its loss is not that "
                "of a language model."
            )
        elif router and not router.get("causal_in_training", True):
            lines.append(
                f"{arm} routes with knowledge of later tokens in training alone: its held-out loss "
                "is that of a language model, its training loss is not."
            )
    return lines
