"""What the numbers of a study do not say: limits that hold for every sentence of its report."""

from experiments.results.record import Comparison
from experiments.text import listing, number

NOISE_SEEDS = 5  # the evidence asks for five paired seeds at small scale


def caveats(comparison: Comparison) -> list[str]:
    """One line per limit, each only where it applies to the runs at hand."""
    lines = [_learning_rate(comparison), _seeds(comparison), _scope(comparison)]
    lines += [_declared(comparison)]
    lines += [
        one.text
        for one in comparison.declared.caveats
        if not one.arms or set(one.arms) & set(comparison.arms)
    ]
    return [line for line in [*lines, *_unequal(comparison), *_not_causal(comparison)] if line]


def _learning_rate(comparison: Comparison) -> str:
    rates = {name: arm.curve.peak_learning_rate for name, arm in comparison.arms.items()}
    rates = {arm: rate for arm, rate in rates.items() if rate is not None}
    if not rates:
        return "The learning rate was not recorded; nothing says that it suits every arm."
    if len(set(rates.values())) > 1:
        each = listing([f"{arm} {rate:g}" for arm, rate in rates.items()])
        return f"The highest learning rate differs between arms ({each})."
    return (
        f"The learning rate is the same for every arm (highest {next(iter(rates.values())):g}), "
        "not tuned per arm; the best rate can differ between arms."
    )


def _seeds(comparison: Comparison) -> str:
    """Nothing with one seed, as the first sentence of all says so."""
    counts = [len(a.seeds_finished) for a in comparison.arms.values() if a.seeds_finished]
    low, high = min(counts, default=1), max(counts, default=1)
    if high == 1:
        return ""
    seeds = f"{low} seed{'s' * (low > 1)}" if low == high else f"{low} to {high} seeds"
    few = (
        f"; with fewer than {NOISE_SEEDS} a single outlier run is hard to recognise and the "
        "intervals are wide"
    )
    return f"{seeds} per arm{few if low < NOISE_SEEDS else ''}."


def _declared(comparison: Comparison) -> str:
    """Where nothing was declared before the first step, or more seeds came than it named."""
    declared = comparison.declared
    if not declared.beforehand:
        return (
            "Nothing was declared before the first step of these runs, so no expectation is held "
            "against them."
        )
    late = [str(seed) for seed in declared.seeds if seed not in declared.planned]
    if not late:
        return ""
    seeds = f"Seed{'s' * (len(late) > 1)} {listing(late)} came after the declaration"
    return (
        f"{seeds}, which named {len(declared.planned)}: where somebody looked in between, p values "
        "promise less than they say; --until-decided plans its looks."
    )


def _scope(comparison: Comparison) -> str:
    seed = (
        "A seed sets the initial weights and the order of the training data; the held-out text is"
    )
    if comparison.one_seed:
        return f"{seed} fixed."
    return (
        f"{seed} fixed. The intervals hold the noise between seeds, not that of the choice of "
        "text, model size or training length."
    )


def _unequal(comparison: Comparison) -> list[str]:
    """Arms whose FLOPs or training tokens are not those of the baseline."""
    base = comparison.baseline
    tokens = comparison.arms[base].tokens if base in comparison.arms else None
    lines = []
    for name, arm in comparison.arms.items():
        if arm.flops_ratio and not arm.matched:
            ratio = number(arm.flops_ratio, 3)
            lines.append(f"{name} costs {ratio} × the FLOPs per token of {base}.")
        if tokens and arm.tokens and arm.tokens != tokens:
            lines.append(
                f"{name} was trained on {arm.tokens:,} tokens and {base} on {tokens:,}: their "
                "difference is not one at equal data."
            )
    return lines


def _not_causal(comparison: Comparison) -> list[str]:
    """Arms whose router looks at later tokens: at evaluation, or in training alone."""
    lines = []
    for name, arm in comparison.arms.items():
        if arm.router and not arm.router.causal:
            lines.append(
                f"{name} routes with knowledge of later tokens (not causal): its loss is not that "
                "of a language model."
            )
        elif arm.router and not arm.router.causal_in_training:
            lines.append(
                f"{name} routes with knowledge of later tokens in training alone: its held-out "
                "loss is that of a language model, its training loss is not."
            )
    return lines
