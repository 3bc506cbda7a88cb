"""All metrics of a trace, and of two, as strict JSON."""

import dataclasses
import json

import numpy as np
import pytest

from moe import registry
from moe.analysis import contract, summary
from moe.registry import Mistake
from tests.fakes import traces

COLUMNS = {"value", "null_mean", "null_sd", "excess", "sigmas"}


def strict(record):
    """The record after a way through JSON that knows no NaN."""
    return json.loads(json.dumps(record, allow_nan=False))


def empty(k=1):
    """A trace of which nothing is known: no labels, no targets, no inputs, no margins."""
    none = {"margin_T": np.full(8, np.nan), "sample_S": np.zeros(0, np.int32)}
    layer = traces.layer(np.full((8, k), 4), input_SD=np.zeros((0, 2)), **none)
    unknown = {name: np.full(8, -1) for name in ("target_T", "desk_T", "class_T")}
    return traces.trace(layer, loss_T=np.full(8, np.nan), **unknown)


def test_every_metric_of_every_layer_in_strict_json():
    found = strict(summary.summary(traces.random(layers=2)))
    assert list(found["metrics"]) == list(registry.names("metric"))
    assert found["layers"] == [0, 1] and found["tokens"] == 48 and found["label"] == "made"
    for rows in found["metrics"].values():
        for row in rows.values():
            assert set(row) - {"detail"} == COLUMNS
            assert all(len(column) == 2 for column in row.values())
    entropy = found["metrics"]["information"]["entropy"]
    assert entropy["excess"][0] == pytest.approx(
        entropy["value"][0] - entropy["null_mean"][0], abs=1e-5
    )


def test_the_same_trace_has_the_same_numbers():
    trace = traces.random()
    assert summary.summary(trace) == summary.summary(trace)


@pytest.mark.parametrize("k", [1, 2])
def test_what_is_not_there_is_null_and_has_the_same_names(k):
    found = strict(summary.summary(empty(k)))
    whole = summary.summary(traces.random(k=k, layers=1))
    for metric, rows in found["metrics"].items():
        assert list(rows) == list(whole["metrics"][metric])
    values = {n: row["value"][0] for rows in found["metrics"].values() for n, row in rows.items()}
    assert {n: value for n, value in values.items() if value is not None} == {
        "drop_rate": 0,
        "drop_all": 0,
    }


def test_one_expert_and_all_experts_are_measured():
    one = strict(summary.summary(traces.trace(traces.layer(np.zeros((8, 1)), E=1))))
    assert one["metrics"]["repeat"]["repeat"]["value"] == [1]
    every = np.tile(np.arange(4), (8, 1))
    found = strict(summary.summary(traces.trace(traces.layer(every))))
    assert found["metrics"]["coactivation"]["partner"]["value"] == [1]
    assert found["metrics"]["information"]["u_desk"]["value"] == [None]  # nothing left to tell


def test_the_untrained_router_stands_beside():
    trained, untrained = traces.random(seed=1), traces.random(seed=1)
    shuffled = dataclasses.replace(
        untrained.layers[0], expert_TK=untrained.layers[0].expert_TK[::-1].copy()
    )
    untrained = dataclasses.replace(untrained, layers=(shuffled, untrained.layers[1]))
    row = summary.summary(trained, untrained)["metrics"]["information"]["u_token"]
    alone = summary.summary(untrained)["metrics"]["information"]["u_token"]
    assert row["untrained"] == alone["value"] != row["value"]
    with pytest.raises(Mistake, match="made: must be a trace of the text of made"):
        summary.summary(trained, traces.random(seed=2))


def test_two_traces_in_strict_json():
    first, second = traces.random(seed=1), traces.random(seed=1)
    found = strict(summary.comparison(first, second))
    assert list(found["metrics"]) == list(registry.names("comparison"))
    assert found["metrics"]["saturation"]["saturation"]["value"] == [1, 1]
    assert found["metrics"]["matching"]["matched"]["detail"][0]["partner"] == [0, 1, 2, 3]
    with pytest.raises(Mistake, match="has 1 MoE layers; must have the 2 of made"):
        summary.comparison(first, dataclasses.replace(second, layers=second.layers[:1]))


def test_readings_tell_their_spread():
    # Null 1, 2, 3: mean 2, deviation 1 (n - 1); 5 is 3 over it, 3 deviations.
    found = contract.reading("x", 5.0, [1.0, 2.0, 3.0])
    assert (found.null_mean, found.null_sd, found.excess, found.sigmas) == (2, 1, 3, 3)
    assert contract.reading("x", float("nan"), [1.0]).value is None
    assert contract.reading("x", 0.5, [0.1] * 3).null_sd == 0
    assert contract.reading("x", 0.5, [0.1] * 3).sigmas is None
    ready = contract.json_ready({"a": np.array([1.23456789, np.nan]), "b": (np.int64(2), True)})
    assert ready == {"a": [1.23457, None], "b": [2, True]}
