"""A load metric is one entry: it comes into result.json, the table, the findings and the page."""

import json

import numpy as np
import pytest

from experiments.report.report import report, table
from experiments.results.result import Result
from moe.analysis import load
from moe.experiment import Experiment
from moe.model.layer import MoE
from moe.model.transformer import Transformer
from moe.training.evaluate import Evaluation
from tests.fakes.docs import example
from tests.fakes.study import Page, edit, router_record, write_study

NAMES = {"np": np, "Metric": load.Metric, "fractions": load.fractions}
BUSIEST_TWO = eval(example("Metric("), NAMES)


RUN = Experiment(Transformer(num_layers=1, moe=MoE(num_experts=4), moe_layers=(0,)))


def evaluation():
    load_YNE = np.array([[[1.0, 2.0, 3.0, 4.0]]])
    one = np.ones(1)
    return Evaluation(("a",), one, one, 5 * one, one, load_YNE, np.array([2.0]), one)


def test_metrics_of_a_load_by_hand():
    found = evaluation().router(RUN)
    assert found.metrics["max_violation"] == pytest.approx([0.6])  # 4 / 2.5 - 1
    assert found.metrics["drop_rate"] == [0.2]  # 2 of 10
    assert found.metrics["dead_experts"] == [0]
    assert found.metrics["unserved_rate"] == [0.2]  # 1 of 5 tokens
    assert found.load == [[0.1, 0.2, 0.3, 0.4]]
    assert load.RouterLoad.read(json.loads(json.dumps(found.content()))) == found


def test_without_an_assignment_nothing_is_dropped():
    nothing = load.Load(np.zeros((1, 4)), np.zeros(1), np.ones(1))
    found = load.measured(nothing)
    assert found["drop_rate"] == [0] and found["unserved_rate"] == [1]


def test_a_metric_is_one_entry(tmp_path, monkeypatch, undrawn):
    monkeypatch.setattr(load, "METRICS", (*load.METRICS, BUSIEST_TWO))
    record = evaluation().router(RUN).content()
    assert record["busiest_two"] == pytest.approx([0.7])  # 0.3 + 0.4
    directory = write_study(tmp_path, arms=("dense", "top1"), seeds=(0,))
    edit(
        directory / "top1" / "seed0" / "result.json",
        router=router_record() | {"busiest_two": [0.4, 0.625]},
    )
    report(directory)
    head, *_, row = table(directory).split("\n\n")[1].splitlines()
    assert head.split()[-2:] == ["top", "two"] and row.split()[-1] == "0.625"
    page = Page((directory / "report.html").read_text())
    assert "Busiest two" in page.text and "share of the two busiest experts" in page.text
    assert "two experts take 0.62" in page.text


def test_results_from_before_a_metric_have_no_cell_for_it(tmp_path, monkeypatch, undrawn):
    directory = write_study(tmp_path, arms=("dense", "top1"), seeds=(0,))
    monkeypatch.setattr(load, "METRICS", (*load.METRICS, BUSIEST_TWO))
    report(directory)
    assert "top two" not in table(directory)
    found = Result.read(directory / "top1/seed0/result.json", {"arm": "top1"})
    assert "busiest_two" not in found.router.metrics
