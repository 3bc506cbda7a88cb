"""Aggregates the runs of a study into the one record that every page, table and figure shows."""

import math

from experiments.report import statistics
from experiments.report.curves import curves
from experiments.results.runs import DIVERGED, FINISHED, UNFINISHED, Runs, finite

TOTAL = "dense_total"  # dense twin with the parameters of the sparse arms
LEARNED = "top1"  # learned router that the hash arms are measured against
HASH = "hash"  # arms whose name starts so route by a fixed table
SPARSE_STATS = ("load_entropy", "max_violation", "drop_rate", "dead_experts")
MATCHED = 0.01  # relative tolerance within which FLOPs count as equal


def aggregate(runs: Runs) -> dict:
    """The content of results.json: numbers only; sentences are added by the report.

    Deterministic: the same files give the same record, and measured times appear only under keys
    named "timing". Losses are in nats per token, intervals at 95 %.
    """
    study = runs.study
    names = list(dict.fromkeys([*study["arms"], *(run.arm for run in runs.runs)]))
    names.sort(key=lambda arm: arm != study["baseline"])
    arms = {arm: _arm(arm, runs) for arm in names}
    record = {
        "study": study["study"],
        "size": study["size"],
        "question": study["question"],
        "baseline": study["baseline"],
        "seeds": study["seeds"],
        "overrides": study.get("overrides", []),
        "arm_order": names,
        "arms": arms,
        "baselines": _baselines(runs),
        "environment": _environment(runs),
        "problems": list(runs.problems),
    }
    _compare(record)
    _compare_desks(record)
    _contrast(record)
    for arm in names:
        arms[arm]["position"] = _share(arms, study["baseline"], arm, TOTAL)
        if arm.startswith(HASH):
            arms[arm]["hash_share"] = _share(arms, study["baseline"], arm, LEARNED)
    return record


def _arm(arm: str, runs: Runs) -> dict:
    results = runs.finished(arm)
    diverged = runs.seeds(arm, DIVERGED)
    unfinished = runs.seeds(arm, UNFINISHED)
    planned = runs.study["seeds"] if arm in runs.study["arms"] else []
    absent = [seed for seed in planned if seed not in [*results, *diverged, *unfinished]]
    whole = {} if diverged else results  # the mean over the survivors of a divergence misleads
    first = next(iter(results.values()), {})
    desks = list(dict.fromkeys(desk for result in whole.values() for desk in result["desk_loss"]))
    record = {
        "description": runs.study["arms"].get(arm, "not listed in study.json"),
        "status": _status(results, diverged, [*unfinished, *absent]),
        "seeds_finished": list(results),
        "seeds_diverged": diverged,
        "seeds_unfinished": unfinished,
        "seeds_absent": absent,
        "val_loss": _over_seeds(results, lambda result: result["val_loss"]),
        "val_bits_per_byte": _over_seeds(whole, lambda result: result["val_bits_per_byte"]),
        "desk_loss": {
            desk: _over_seeds(whole, lambda result, desk=desk: result["desk_loss"].get(desk))
            for desk in desks
        },
        "desk_tokens": first.get("desk_tokens", {}),
        "router": _router(results),
        "curve": curves(arm, runs),
        "timing": _timing(results),
    }
    for key in ("params_total", "params_active", "flops_per_token", "tokens", "steps"):
        record[key] = first.get(key)
    for key in ("params_by_part", "flops_by_part"):
        record[key] = first.get(key, {})
    return record


def _status(results: dict, diverged: list, open_seeds: list) -> str:
    if diverged:
        return "diverged"
    if not results:
        return "missing"
    return "incomplete" if open_seeds else "complete"


def _over_seeds(results: dict[int, dict], value) -> dict:
    values = {seed: value(result) for seed, result in results.items()}
    return statistics.summary({seed: v for seed, v in values.items() if v is not None})


def _router(results: dict[int, dict]) -> dict | None:
    """Means over seeds per MoE layer; the loads are those of one seed, as experts have no order."""
    routed = {seed: r["router"] for seed, r in results.items() if r["router"] is not None}
    if not routed:
        return None
    shown = min(routed)
    router = routed[shown]
    record = {"layers": router["layers"], "num_experts": router["num_experts"]}
    for key in SPARSE_STATS:
        columns = zip(*(one[key] for one in routed.values()), strict=True)
        record[key] = [math.fsum(column) / len(routed) for column in columns]
    peak = {"share": 0.0}
    for desk, rows in router["desk_load"].items():
        for layer, load in zip(router["layers"], rows, strict=True):
            if max(load) > peak["share"]:
                expert = load.index(max(load))
                peak = {"share": max(load), "desk": desk, "layer": layer, "expert": expert}
    shown_loads = {"load": router["load"], "desk_load": router["desk_load"], "peak": peak}
    causal = {key: router.get(key, True) for key in ("causal", "causal_in_training")}
    return record | shown_loads | {"shown_seed": shown, **causal}


def _timing(results: dict[int, dict]) -> dict:
    keys = dict.fromkeys(key for result in results.values() for key in result["timing"])
    means = {}
    for key in keys:
        values = [result["timing"].get(key) for result in results.values()]
        numbers = [value for value in values if finite(value)]
        means[key] = math.fsum(numbers) / len(numbers) if numbers else None
    return means


def _baselines(runs: Runs) -> dict:
    """Count-based baselines on the same held-out text; bits per byte by the runs' own ratio."""
    for run in runs.runs:
        found = (run.result or {}).get("baselines") or {}
        if run.status != FINISHED or not found:
            continue
        ratio = run.result["val_bits_per_byte"] / run.result["val_loss"]
        bits = {
            key.replace("_nats", "_bits_per_byte"): found[key] * ratio
            for key in ("unigram_nats", "fivegram_nats")
            if finite(found.get(key))
        }
        return found | bits
    return {}


def _environment(runs: Runs) -> dict:
    """Each recorded version once; a list where the runs differ."""
    seen: dict[str, list] = {}
    for run in runs.runs:
        for key, value in (run.result or {}).get("environment", {}).items():
            if value not in seen.setdefault(key, []):
                seen[key].append(value)
    return {key: values[0] if len(values) == 1 else values for key, values in seen.items()}


def _by_seed(summary: dict) -> dict[int, float]:
    return {int(seed): value for seed, value in summary["by_seed"].items()}


def _compare(record: dict) -> None:
    """Adds `difference`, `verdict` and `flops_ratio` to every arm, Holm over the arms."""
    arms, baseline = record["arms"], record["baseline"]
    base = arms.get(baseline)
    for arm, entry in arms.items():
        other = base if base and arm != baseline else None
        entry["difference"] = other and _paired(entry, other)
        flops = (entry["flops_per_token"], base and base["flops_per_token"])
        entry["flops_ratio"] = flops[0] / flops[1] if flops[0] and flops[1] else None
        entry["verdict"] = _verdict(arm, entry, baseline)
    _add_holm({arm: entry["difference"] for arm, entry in arms.items()})


def _paired(entry: dict, other: dict) -> dict | None:
    """Paired difference of validation losses; None when either arm had a diverged run."""
    if entry["seeds_diverged"] or other["seeds_diverged"]:
        return None
    return statistics.paired(_by_seed(entry["val_loss"]), _by_seed(other["val_loss"]))


def _verdict(arm: str, entry: dict, baseline: str) -> str:
    if entry["status"] in ("diverged", "missing"):
        return entry["status"]
    if arm == baseline:
        return "baseline"
    return entry["difference"]["verdict"] if entry["difference"] else "no baseline"


def _add_holm(differences: dict) -> None:
    present = {name: one for name, one in differences.items() if one is not None}
    adjusted = statistics.holm({name: one["p"] for name, one in present.items()})
    tested = sum(p is not None for p in adjusted.values())
    for name, one in present.items():
        one |= {"p_holm": adjusted[name], "comparisons": tested}


def _compare_desks(record: dict) -> None:
    """Adds `desk_difference` to every arm; Holm over all arms and desks together."""
    arms, baseline = record["arms"], record["baseline"]
    differences = {}
    for arm, entry in arms.items():
        entry["desk_difference"] = {}
        for desk, summary in entry["desk_loss"].items():
            base = arms.get(baseline, {}).get("desk_loss", {}).get(desk)
            if base is None or arm == baseline:
                continue
            one = statistics.paired(_by_seed(summary), _by_seed(base))
            entry["desk_difference"][desk] = differences[arm, desk] = one
    _add_holm(differences)


def _contrast(record: dict) -> None:
    """Adds `difference_to_learned` to every hash arm; Holm over the hash arms."""
    arms = record["arms"]
    differences = {}
    for arm, entry in arms.items():
        if arm.startswith(HASH) and LEARNED in arms:
            one = _paired(entry, arms[LEARNED])
            entry["difference_to_learned"] = differences[arm] = one
    _add_holm(differences)


def _share(arms: dict, baseline: str, arm: str, end: str) -> dict | None:
    """(L_baseline - L_arm) / (L_baseline - L_end) with Fieller's interval, or the reason why not.

    None for the two arms that define the scale and where one is not in the study. Position p has
    end = dense_total (evidence C10), hash share s has end = top1 (C18).
    """
    if arm in (baseline, end) or end not in arms:
        return None
    undefined = {"value": None, "low": None, "high": None, "n": 0}
    for name in (baseline, end, arm):
        if name not in arms or arms[name]["status"] == "missing":
            return undefined | {"reason": f"{name} has no finished run"}
        if arms[name]["status"] == "diverged":
            return undefined | {"reason": f"a run of {name} diverged"}
    losses = {name: _by_seed(arms[name]["val_loss"]) for name in (baseline, arm, end)}
    shared = sorted(set.intersection(*map(set, losses.values())))
    if len(shared) < 2:
        return undefined | {"n": len(shared), "reason": "fewer than two seeds that all three share"}
    top, bottom = (
        {seed: losses[baseline][seed] - losses[name][seed] for seed in shared}
        for name in (arm, end)
    )
    ratio = statistics.fieller(top, bottom)
    if ratio is None:
        reason = f"{end} is not below {baseline} beyond seed noise"
        return undefined | {"n": len(shared), "reason": reason}
    return ratio | {"reason": None}


def matched(entry: dict) -> bool:
    """True when an arm's forward FLOPs per token are those of the baseline within 1 %."""
    return entry["flops_ratio"] is not None and abs(entry["flops_ratio"] - 1) <= MATCHED
