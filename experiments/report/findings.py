"""Sentences that the numbers of a study support: headline, findings and caveats, never more."""

from experiments.report.compare import LEARNED, TOTAL, matched
from experiments.report.statistics import HIGHER, LOWER, ONE_SEED, UNCLEAR
from experiments.text import interval, listing, number, probability

SIGNIFICANT = 0.05
NOISE_SEEDS = 5  # the evidence asks for five paired seeds at small scale


def headline(record: dict) -> list[str]:
    """Two to four sentences that answer the question of the study."""
    arms, base = record["arms"], record["baseline"]
    others = [arm for arm in record["arm_order"] if arm != base]
    if arms.get(base, {}).get("status", "missing") in ("missing", "diverged"):
        return [f"There is no comparison yet: {base}, the baseline, has no complete result."]
    judged = [arm for arm in others if arms[arm]["verdict"] in (LOWER, HIGHER, UNCLEAR)]
    if not judged:
        return _one_seed(record, others)
    equal = [arm for arm in judged if matched(arms[arm])]
    total = [arm for arm in judged if arm == TOTAL and arm not in equal]
    apart = [arm for arm in judged if arm not in [*equal, *total]]
    cost = number(arms[TOTAL]["flops_ratio"], 2) if total else ""
    sentences = [
        _group(arms, equal, base, "At equal FLOPs per token"),
        _group(arms, apart, base, "At other FLOPs per token"),
        _correction(arms, [*equal, *apart]),
        _group(arms, total, base, f"At {cost} × the FLOPs"),
        _position(arms, equal, base),
        _hash(arms),
    ]
    return [sentence for sentence in sentences if sentence]


def _one_seed(record: dict, others: list[str]) -> list[str]:
    arms, base = record["arms"], record["baseline"]
    seen = [arm for arm in others if arms[arm]["verdict"] == ONE_SEED]
    if not seen:
        return [f"Only {base} has finished, so there is nothing to compare yet."]
    best = min(seen, key=lambda arm: arms[arm]["difference"]["mean"])
    gap = arms[best]["difference"]["mean"]
    side = "below" if gap < 0 else "above"
    return [
        "One seed per arm: every difference below is a single draw, and none can be told from "
        "the noise between seeds.",
        f"In this draw {best} has the lowest loss of the other arms, {number(abs(gap), 3)} nats "
        f"per token {side} {base}.",
    ]


def _group(arms: dict, group: list[str], base: str, opening: str) -> str:
    """One sentence on the arms of a group: which are below, above or not told from the baseline."""
    parts = []
    for verdict, side in ((LOWER, "below"), (HIGHER, "above")):
        chosen = [arm for arm in group if arms[arm]["verdict"] == verdict]
        if chosen:
            gaps = sorted(abs(arms[arm]["difference"]["mean"]) for arm in chosen)
            sizes = dict.fromkeys(number(gap, 3) for gap in (gaps[0], gaps[-1]))
            verb = "ends" if len(chosen) == 1 else "end"
            parts.append(
                f"{listing(chosen)} {verb} {' to '.join(sizes)} nats per token {side} {base}, "
                "beyond the noise between seeds"
            )
    unclear = [arm for arm in group if arms[arm]["verdict"] == UNCLEAR]
    if unclear:
        parts.append(f"{listing(unclear)} cannot be told apart from {base}")
    body = "; ".join(parts)
    return f"{opening}{', ' if opening else ''}{body}." if body else ""


def _correction(arms: dict, judged: list[str]) -> str:
    """Which of the differences that the headline claims do not survive Holm's correction."""
    claimed = [arm for arm in judged if arms[arm]["verdict"] in (LOWER, HIGHER)]
    lost = [arm for arm in claimed if arms[arm]["difference"]["p_holm"] >= SIGNIFICANT]
    if not lost:
        return ""
    count = arms[lost[0]]["difference"]["comparisons"]
    if lost == claimed:
        return f"After correction for {count} comparisons none of these differences holds."
    which = f"the difference{'s' * (len(lost) > 1)} of {listing(lost)}"
    verb = "holds" if len(lost) == 1 else "hold"
    return f"After correction for {count} comparisons {which} no longer {verb}."


def _position(arms: dict, equal: list[str], base: str) -> str:
    values = {arm: (arms[arm]["position"] or {}).get("value") for arm in equal}
    known = [arm for arm in equal if values[arm] is not None]
    if not known:
        return ""
    way = f"On the way from {base} (0) to {TOTAL} (1)"
    low, high = min(known, key=values.get), max(known, key=values.get)
    top, bounds = number(values[high], 2), interval(arms[high]["position"], 2, False)
    if len(known) == 1:
        return f"{way}, {high} stands at {top} (95 % interval {bounds})."
    bottom = number(values[low], 2)
    return f"{way}, {low} stands at {bottom} and {high} at {top} (95 % interval {bounds})."


def _hash(arms: dict) -> str:
    parts = []
    for arm, entry in arms.items():
        one = entry.get("difference_to_learned")
        if not one or one["sd"] is None:
            continue
        if one["verdict"] == UNCLEAR:
            parts.append(f"{arm} cannot be told apart from {LEARNED}")
        else:
            side = "above" if one["verdict"] == HIGHER else "below"
            share = entry["hash_share"]
            known = share and share["value"] is not None
            kept = f", keeping {number(share['value'], 2)} of its gain" if known else ""
            lost = one["p_holm"] >= SIGNIFICANT
            limit = f" (not after correction for {one['comparisons']} comparisons)" if lost else ""
            gap = number(abs(one["mean"]), 3)
            parts.append(f"{arm} ends {gap} {side} {LEARNED}{kept}{limit}")
    return f"Fixed against learned routing: {'; '.join(parts)}." if parts else ""


def findings(record: dict) -> list[str]:
    """One sentence per arm and per ratio, then the baselines, the desks and the load."""
    arms, base = record["arms"], record["baseline"]
    others = [arm for arm in record["arm_order"] if arm != base]
    sentences = [_arm(arm, arms[arm], base) for arm in others]
    to_total = f"Position between {base} (0) and {TOTAL} (1)"
    done = [arm for arm in others if arms[arm]["status"] not in ("missing", "diverged")]
    sentences += _ratios(to_total, {arm: arms[arm]["position"] for arm in done})
    kept = f"Share of {LEARNED}'s gain over {base} that a fixed table keeps"
    sentences += _ratios(kept, {arm: arms[arm].get("hash_share") for arm in done})
    sentences += _counts(record) + _desks(arms, others, base)
    sentences += [_load(arm, arms[arm]["router"]) for arm in others if arms[arm]["router"]]
    return sentences


def _arm(arm: str, entry: dict, base: str) -> str:
    one = entry["difference"]
    if entry["status"] == "missing":
        return f"{arm} has no finished run."
    if entry["status"] == "diverged":
        return f"{arm} is not judged: its loss became non-finite in seed {_seeds(entry)}."
    if one is None:
        return f"{arm} has no seed in common with {base}, so nothing is compared."
    side = "below" if one["mean"] < 0 else "above"
    gap = f"{number(abs(one['mean']))} nats per token {side} {base}"
    if one["sd"] is None:
        return f"{arm} ended {gap} in its one paired seed; the noise is not known."
    facts = f"95 % interval {interval(one)}, {one['n']} paired seeds"
    if one["verdict"] == UNCLEAR:
        return (
            f"{arm} cannot be told apart from {base}: it ends {gap} ({facts}), and a difference "
            f"counts only beyond {number(one['threshold'])} with an interval that leaves out zero."
        )
    holds = "holds" if one["p_holm"] < SIGNIFICANT else "does not hold"
    count = one["comparisons"]
    correction = (
        f"this {holds} after Holm's correction for {count} comparisons "
        f"({probability(one['p_holm'])})"
        if count > 1
        else probability(one["p"])
    )
    return f"{arm} ends {gap} ({facts}): beyond seed noise; {correction}."


def _seeds(entry: dict) -> str:
    return listing([str(seed) for seed in entry["seeds_diverged"]])


def _ratios(what: str, shares: dict[str, dict | None]) -> list[str]:
    """All defined ratios in one sentence, then why the others are undefined."""
    shares = {arm: share for arm, share in shares.items() if share}
    known = [
        f"{arm} {number(share['value'], 2)} ({interval(share, 2, False)})"
        for arm, share in shares.items()
        if share["value"] is not None
    ]
    sentences = []
    if known:
        sentences.append(f"{what}: {listing(known)}; 95 % intervals by Fieller's method.")
    reasons = {arm: share["reason"] for arm, share in shares.items() if share["reason"]}
    for reason in dict.fromkeys(reasons.values()):
        names = listing([arm for arm, why in reasons.items() if why == reason])
        sentences.append(f"{what}: undefined for {names}, because {reason}.")
    return sentences


def _counts(record: dict) -> list[str]:
    """Where the trained arms stand against the unigram entropy and the 5-gram model."""
    means = {a: e["val_loss"]["mean"] for a, e in record["arms"].items()}
    means = {arm: mean for arm, mean in means.items() if mean is not None}
    sentences = []
    for key, name in (("unigram_nats", "unigram entropy"), ("fivegram_nats", "5-gram model")):
        level = record["baselines"].get(key)
        if level is None:
            continue
        below = [arm for arm, mean in means.items() if mean < level]
        which = "every arm" if len(below) == len(means) else listing(below) or "no arm"
        verb = "end" if len(below) > 1 and len(below) < len(means) else "ends"
        sentences.append(
            f"On the same held-out tokens {which} {verb} below the {name} ({number(level)} nats)."
        )
    return sentences


def _desks(arms: dict, others: list[str], base: str) -> list[str]:
    """Desks where an arm differs beyond noise, also after correction over all arms and desks."""
    parts, count = [], 0
    for arm in others:
        desks = {
            d: one
            for d, one in arms[arm]["desk_difference"].items()
            if one and one["sd"] is not None
        }
        if not desks:
            continue
        sure = [
            desk
            for desk, one in desks.items()
            if one["verdict"] in (LOWER, HIGHER) and one["p_holm"] < SIGNIFICANT
        ]
        count = next(iter(desks.values()))["comparisons"]
        told = listing(sure) if 0 < len(sure) < len(desks) else "every desk" if sure else "none"
        parts.append(f"{arm} on {told}")
    if not parts:
        return []
    return [
        f"By desk, beyond seed noise and after correction for {count} comparisons, told apart from "
        f"{base}: {'; '.join(parts)}."
    ]


def _load(arm: str, router: dict) -> str:
    entropy = sum(router["load_entropy"]) / len(router["load_entropy"])
    peak, even = router["peak"], 1 / router["num_experts"]
    sentence = (
        f"Load in {arm}: entropy {number(entropy, 3)} of 1, busiest expert "
        f"{number(1 + max(router['max_violation']), 2)} × the even share in its layer"
    )
    if peak["share"]:
        sentence += (
            f"; in seed {router['shown_seed']} the strongest tie of a desk to an expert is "
            f"{100 * peak['share']:.0f} % of {peak['desk']} to expert {peak['expert']} of layer "
            f"{peak['layer']} (even: {100 * even:.1f} %)"
        )
    return sentence + "."


def open_runs(record: dict) -> list[str]:
    """One line per arm whose runs have not all finished."""
    lines = []
    for arm in record["arm_order"]:
        entry = record["arms"][arm]
        states = (
            ("not started", entry["seeds_absent"]),
            ("not finished", entry["seeds_unfinished"]),
            ("diverged", entry["seeds_diverged"]),
        )
        parts = [
            f"seed{'s' * (len(seeds) > 1)} {listing([str(s) for s in seeds])} {state}"
            for state, seeds in states
            if seeds
        ]
        if parts:
            lines.append(f"{arm}: {'; '.join(parts)}.")
    return lines
