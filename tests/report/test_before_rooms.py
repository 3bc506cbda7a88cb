"""A study that ran before its files moved into rooms: its runs go on, its report says the same.

tests/golden/before_rooms is what `run dense_topk_hash --seeds=0,1` of four arms, 20 steps each, and
its report left then.
"""

import dataclasses
import json
import pathlib
import shutil

import pytest

from experiments.report.report import report
from experiments.select import resolve
from moe import fields

THERE = pathlib.Path(__file__).parents[1] / "golden" / "before_rooms"
STUDY = json.loads((THERE / "study.json").read_text("utf-8"))
RUNS = [(arm, seed) for arm in STUDY["arms"] for seed in STUDY["seeds"]]


@pytest.fixture(scope="module")
def experiments():
    return resolve(STUDY["study"], STUDY["arms"], STUDY["size"], STUDY["overrides"])


@pytest.mark.parametrize(("arm", "seed"), RUNS)
def test_the_run_is_the_same_experiment(experiments, arm, seed):
    text = (THERE / arm / f"seed{seed}" / "experiment.txt").read_text("utf-8")
    now = fields.expression(dataclasses.replace(experiments[arm], seed=seed))
    assert fields.identity(now) == fields.identity(text)
    assert text.startswith("from moe.attention import Attention\n")  # where no such file lies now


JUDGED = {"verdict", "threshold", "p_holm", "comparisons"}  # by another rule then


def same(then, now, path=""):
    """Every value of then, which may lack what is new."""
    if isinstance(then, dict):
        for key, value in then.items():
            if key in JUDGED:
                continue
            assert key in now, f"{path}/{key} is gone"
            same(value, now[key], f"{path}/{key}")
    elif isinstance(then, list):
        assert len(then) == len(now), path
        for i, (a, b) in enumerate(zip(then, now, strict=True)):
            same(a, b, f"{path}/{i}")
    else:
        assert then == now, path


def test_the_report_comes_out_the_same(tmp_path):
    shutil.copytree(THERE, tmp_path / "study")
    (tmp_path / "study/results.json").unlink()
    report(tmp_path / "study")
    now = json.loads((tmp_path / "study/results.json").read_text("utf-8"))
    same(json.loads((THERE / "results.json").read_text("utf-8"))["arms"], now["arms"])
    assert now["outcomes"] == [] and "declared" not in now
    assert any(line.startswith("Nothing was declared before the first") for line in now["caveats"])
    assert (tmp_path / "study/report.html").stat().st_size > 50_000
