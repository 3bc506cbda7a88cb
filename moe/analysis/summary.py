"""Every registered metric of a trace, or of two, as one record of strict JSON."""

import zlib
from collections.abc import Iterable
from typing import Any, cast

import numpy as np

from moe import registry
from moe.analysis.contract import Comparison, Metric, Reading, json_ready, same_text
from moe.analysis.trace import Trace

SCHEMA = 1


def summary(trace: Trace, untrained: Trace | None = None) -> dict[str, Any]:
    """Metric -> reading -> a list each, over the MoE layers: value, null_mean, null_sd, excess.

    What a layer does not have is None. With a trace of the same text by the model at step 0, its
    value stands beside as `untrained`. Raises Mistake where that is of another text.
    """
    beside = None
    if untrained is not None:
        same_text(trace, untrained)
        beside = _measured(untrained)
    record = _head(trace) | {"metrics": _record(_measured(trace), beside)}
    return json_ready(record)


def comparison(first: Trace, second: Trace) -> dict[str, Any]:
    """The same of two traces of one text: an earlier checkpoint, or another seed, comes first.

    Raises Mistake where the texts or the numbers of MoE layers differ.
    """
    same_text(first, second)
    found = {}
    for name in registry.names("comparison"):
        measure = cast(Comparison, registry.lookup("comparison", name))
        found[name] = [
            measure(second, one, two, _generator(name, two.layer))
            for one, two in zip(first.layers, second.layers, strict=True)
        ]
    return json_ready(_head(second) | {"first": first.about.label, "metrics": _record(found, None)})


def _generator(name: str, layer: int) -> np.random.Generator:
    """Of a metric's null in a layer: another metric more moves no number."""
    return np.random.default_rng([zlib.crc32(name.encode()), layer])


def _measured(trace: Trace) -> dict[str, list[list[Reading]]]:
    """Metric -> the readings of each layer."""
    found = {}
    for name in registry.names("metric"):
        measure = cast(Metric, registry.lookup("metric", name))
        found[name] = [
            measure(trace, layer, _generator(name, layer.layer)) for layer in trace.layers
        ]
    return found


def _head(trace: Trace) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "label": trace.about.label,
        "text": trace.about.text,
        "parameters": trace.about.parameters,
        "tokens": trace.tokens,
        "layers": [layer.layer for layer in trace.layers],
        "routers": [layer.router for layer in trace.layers],
    }


def _record(
    measured: dict[str, list[list[Reading]]], beside: dict[str, list[list[Reading]]] | None
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for metric, layers in measured.items():
        rows = found[metric] = {}
        for n, readings in enumerate(zip(*layers, strict=True)):
            row = rows[readings[0].name] = _row(readings)
            if beside is not None:
                row["untrained"] = [layer[n].value for layer in beside[metric]]
    return found


def _row(readings: Iterable[Reading]) -> dict[str, Any]:
    readings = list(readings)
    names = ("value", "null_mean", "null_sd", "excess", "sigmas")
    row: dict[str, Any] = {name: [getattr(each, name) for each in readings] for name in names}
    if any(each.detail for each in readings):
        row["detail"] = [dict(each.detail) for each in readings]
    return row
