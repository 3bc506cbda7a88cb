"""Title, caption and alternative text of each figure, written from the numbers it shows."""

from experiments.figures.heatmap import MAX_LAYERS
from experiments.text import listing, number


def describe(name: str, record: dict) -> tuple[str, str, str]:
    """(title, caption, alt) of the figure with that file name."""
    return {
        "loss_curves": _loss_curves,
        "loss_by_desk": _loss_by_desk,
        "expert_load": _expert_load,
        "desks_by_expert": _desks_by_expert,
        "loss_against_cost": _loss_against_cost,
    }[name](record)


def _means(record: dict) -> str:
    parts = [
        f"{arm} {number(record['arms'][arm]['val_loss']['mean'])}"
        for arm in record["arm_order"]
        if record["arms"][arm]["val_loss"]["mean"] is not None
    ]
    return listing(parts)


def _loss_curves(record: dict) -> tuple[str, str, str]:
    base = record["baseline"]
    caption = (
        "Left: training loss (line, running mean) and validation loss (markers); the band spans "
        "the lowest to the highest seed; the first 3 % of training is off the top. Right: "
        f"validation loss minus that of {base} at the same seed and step, which is where arms that "
        "lie on top of each other on the left come apart. Look at whether a curve on the right "
        "has levelled off: one that still falls or rises says that a longer run may rank the arms "
        "differently."
    )
    alt = f"Loss over training tokens per arm. Final validation loss: {_means(record)}."
    return "Loss during training", caption, alt


def _loss_by_desk(record: dict) -> tuple[str, str, str]:
    base = record["baseline"]
    desks = len({desk for entry in record["arms"].values() for desk in entry["desk_difference"]})
    caption = (
        f"Mean paired difference to {base}, with its 95 % t interval, on all held-out text and on "
        f"each of the {desks} desks. An interval that crosses the line is no evidence of a "
        "difference. Intervals are not corrected for the number of desks; the sentence above is."
    )
    parts = []
    for arm in record["arm_order"]:
        one = record["arms"][arm]["difference"]
        if one:
            parts.append(f"{arm} {number(one['mean'], sign=True)}")
    return "Loss by desk", caption, f"Difference to {base} on all text: {listing(parts)}."


def _seeds_shown(record: dict) -> str:
    shown = {e["router"]["shown_seed"] for e in record["arms"].values() if e["router"]}
    return listing([str(seed) for seed in sorted(shown)])


def _expert_load(record: dict) -> tuple[str, str, str]:
    caption = (
        "Percent of the held-out tokens' assignments that each expert takes, per MoE layer. No "
        "colour is the even share 1/E, orange is more and blue is less; × marks a dead expert. "
        f"One seed is shown ({_seeds_shown(record)}), because expert numbers mean nothing across "
        "seeds. Even rows say that load is balanced over all text together; they do not say that "
        "a given token or desk is spread evenly, which is the next figure."
    )
    parts = [
        f"{arm} entropy {number(sum(r['load_entropy']) / len(r['load_entropy']), 3)}"
        for arm, r in _routers(record).items()
    ]
    return "Load per expert", caption, f"Heat map of load per expert: {listing(parts)}."


def _desks_by_expert(record: dict) -> tuple[str, str, str]:
    routers = _routers(record)
    peaks = {arm: router["peak"] for arm, router in routers.items() if router["peak"]["share"]}
    caption = (
        "Percent of a desk's tokens that each expert takes; each row sums to 100. Colour as "
        "above. Rows that look alike mean that experts do not follow the desk; a coloured cell is "
        "an expert that serves this desk more or less than an even split would. Hash arms differ "
        "between rows only as far as the words of the desks differ."
    )
    if any(len(router["layers"]) > MAX_LAYERS for router in routers.values()):
        caption += f" {MAX_LAYERS} layers of each arm are shown."
    strongest = [
        f"{arm} {100 * peak['share']:.0f} % of {peak['desk']} to expert {peak['expert']} of layer "
        f"{peak['layer']}"
        for arm, peak in peaks.items()
    ]
    return "Which desks each expert serves", caption, f"Strongest ties: {listing(strongest)}."


def _routers(record: dict) -> dict[str, dict]:
    arms = {arm: record["arms"][arm]["router"] for arm in record["arm_order"]}
    return {arm: router for arm, router in arms.items() if router}


def _loss_against_cost(record: dict) -> tuple[str, str, str]:
    caption = (
        "Left: of arms that stand together, at the same FLOPs per token, the lower makes more of "
        "them. Right: the same losses against what has to be held in memory. Bars are ± one "
        "standard deviation over seeds. Arms of equal cost are set side by side so that their "
        "bars can be told apart."
    )
    return "Loss against cost", caption, f"Validation loss: {_means(record)}."
