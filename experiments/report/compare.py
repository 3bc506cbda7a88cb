"""Compares the arms of a study: the one record that every page, table and figure shows."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from experiments.report import statistics
from experiments.report.curves import curves
from experiments.report.differences import by_desk, compared
from experiments.results.record import (
    COMPLETE,
    DIVERGED,
    INCOMPLETE,
    MISSING,
    Arm,
    Comparison,
    Peak,
    Routers,
    Share,
    Summary,
)
from experiments.results.result import Result, finite
from experiments.results.runs import DIVERGED as RUN_DIVERGED
from experiments.results.runs import FINISHED, UNFINISHED, Runs
from experiments.studies.contract import Scale
from moe.analysis import load

Arms = Mapping[str, Arm]


def compare(runs: Runs) -> Comparison:
    """The content of results.json.

    Deterministic: the same files give the same record, and measured times appear only under keys
    named "timing". Losses are in nats per token, intervals at 95 %.
    """
    declared = runs.declared
    names = dict.fromkeys([declared.baseline, *declared.arms, *(run.arm for run in runs.runs)])
    known = {*declared.arms, *(run.arm for run in runs.runs)}
    arms = {name: _arm(name, runs) for name in names if name in known}
    arms, outcomes = compared(arms, declared)
    arms = by_desk(arms, declared)
    arms = {name: _placed(arms, arm, declared.scales) for name, arm in arms.items()}
    return Comparison(
        declared=declared,
        arms={name: arms[name] for name in sorted(arms, key=lambda name: _rank(arms[name]))},
        outcomes=outcomes,
        baselines=_baselines(runs),
        environment=_environment(runs),
        problems=runs.problems,
        tuned=runs.tuned,
        shorter=tuple(compare(each) for each in runs.shorter),
    )


def _rank(arm: Arm) -> int:
    """The baseline, arms of its cost and those of no known cost, then arms at other FLOPs."""
    return int(arm.flops_ratio is not None and not arm.matched)


def _arm(name: str, runs: Runs) -> Arm:
    declared, results = runs.declared, runs.finished(name)
    diverged = runs.seeds(name, RUN_DIVERGED)
    unfinished = runs.seeds(name, UNFINISHED)
    planned = declared.seeds if name in declared.arms else ()
    absent = tuple(s for s in planned if s not in {*results, *diverged, *unfinished})
    whole = {} if diverged else results  # the mean over the survivors of a divergence misleads
    desks = dict.fromkeys(desk for result in whole.values() for desk in result.desk_loss)
    first = next(iter(results.values()), None)
    same = ("params_total", "params_active", "flops_per_token", "tokens", "steps")
    parts = ("desk_tokens", "params_by_part", "flops_by_part")
    return Arm(
        name=name,
        description=declared.arms.get(name, "not listed in study.json"),
        status=_status(results, diverged, [*unfinished, *absent]),
        seeds_finished=tuple(results),
        seeds_diverged=diverged,
        seeds_unfinished=unfinished,
        seeds_absent=absent,
        val_loss=_over_seeds(results, lambda result: result.val_loss),
        val_bits_per_byte=_over_seeds(whole, lambda result: result.val_bits_per_byte),
        desk_loss={
            desk: _over_seeds(whole, lambda result, desk=desk: result.desk_loss.get(desk))
            for desk in desks
        },
        router=_router(results),
        curve=curves(name, runs),
        timing=_timing(results),
        **{key: getattr(first, key, None) for key in same},
        **{key: getattr(first, key, {}) for key in parts},
    )


def _status(results: Mapping, diverged: Iterable[int], open_seeds: Iterable[int]) -> str:
    if diverged:
        return DIVERGED
    if not results:
        return MISSING
    return INCOMPLETE if open_seeds else COMPLETE


def _over_seeds(results: Mapping[int, Result], value: Callable[[Result], float | None]) -> Summary:
    values = {seed: value(result) for seed, result in results.items()}
    return statistics.summary({seed: v for seed, v in values.items() if v is not None})


def _router(results: Mapping[int, Result]) -> Routers | None:
    """Means over seeds per MoE layer; the loads are those of one seed, as experts have no order."""
    routed = {seed: r.router for seed, r in results.items() if r.router is not None}
    if not routed:
        return None
    shown = min(routed)
    metrics = {}
    for name in routed[shown].metrics:
        if all(name in router.metrics for router in routed.values()):
            columns = zip(*(router.metrics[name] for router in routed.values()), strict=True)
            metrics[name] = tuple(math.fsum(column) / len(routed) for column in columns)
    router = routed[shown]
    return Routers(
        causal=router.causal,
        causal_in_training=router.causal_in_training,
        layers=tuple(router.layers),
        num_experts=router.num_experts,
        metrics=metrics,
        load=router.load,
        desk_load=router.desk_load,
        peak=_peak(router),
        shown_seed=shown,
    )


def _peak(router: load.RouterLoad) -> Peak:
    peak = Peak()
    for desk, rows in router.desk_load.items():
        for layer, row in zip(router.layers, rows, strict=True):
            if max(row) > peak.share:
                peak = Peak(max(row), desk, layer, row.index(max(row)))
    return peak


def _timing(results: Mapping[int, Result]) -> dict[str, float | None]:
    keys = dict.fromkeys(key for result in results.values() for key in result.timing)
    means = {}
    for key in keys:
        numbers = [r.timing[key] for r in results.values() if finite(r.timing.get(key))]
        means[key] = math.fsum(numbers) / len(numbers) if numbers else None
    return means


def _baselines(runs: Runs) -> dict[str, Any]:
    """Count-based baselines on the same held-out text; bits per byte by the runs' own ratio."""
    for run in runs.runs:
        if run.status != FINISHED or not run.result.baselines:
            continue
        found = run.result.baselines
        ratio = run.result.val_bits_per_byte / run.result.val_loss
        bits = {
            key.replace("_nats", "_bits_per_byte"): found[key] * ratio
            for key in ("unigram_nats", "fivegram_nats")
            if finite(found.get(key))
        }
        return dict(found) | bits
    return {}


def _environment(runs: Runs) -> dict[str, Any]:
    """Each recorded version once; a list where the runs differ."""
    seen: dict[str, list] = {}
    for run in runs.runs:
        for key, value in (run.result.environment if run.result else {}).items():
            if value not in seen.setdefault(key, []):
                seen[key].append(value)
    return {key: values[0] if len(values) == 1 else values for key, values in seen.items()}


def _placed(arms: Arms, arm: Arm, scales: Iterable[Scale]) -> Arm:
    """With its place on each scale; an arm that a scale leaves out by name has no such key."""
    named = [scale for scale in scales if not scale.arms or arm.name in scale.arms]
    return dataclasses.replace(arm, scales={s.name: _share(arms, arm.name, s) for s in named})


def _share(arms: Arms, name: str, scale: Scale) -> Share | None:
    """(L_start - L_arm) / (L_start - L_end) with Fieller's interval, or the reason why not.

    None for the two arms that define the scale and where its end is not in the study.
    """
    if not scale.places(name) or scale.end not in arms:
        return None
    for one in (scale.start, scale.end, name):
        if one not in arms or arms[one].status == MISSING:
            return Share(0, reason=f"{one} has no finished run")
        if arms[one].status == DIVERGED:
            return Share(0, reason=f"a run of {one} diverged")
    losses = {one: arms[one].val_loss.by_seed for one in (scale.start, name, scale.end)}
    shared = sorted(set.intersection(*map(set, losses.values())))
    if len(shared) < 2:
        return Share(len(shared), reason="fewer than two seeds that all three share")
    top, bottom = (
        {seed: losses[scale.start][seed] - losses[one][seed] for seed in shared}
        for one in (name, scale.end)
    )
    reason = f"{scale.end} cannot be shown to be below {scale.start}"
    return statistics.fieller(top, bottom) or Share(len(shared), reason=reason)
