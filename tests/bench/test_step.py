"""The benchmark of training steps: a row for each arm, and the shares of its parts."""

import json

import numpy as np
import pytest

from experiments.bench import parts, step
from experiments.select import resolve
from moe.data import loader
from tests.fakes.data import SyntheticDataset


@pytest.mark.slow
def test_the_step_benchmark_compares_arms_with_the_baseline(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(loader, "load", lambda data, V: SyntheticDataset(V, data.sequence_length))
    few = ("model.model_width=32", "train.batch=2")
    arms = ["dense", "top2"]
    experiments = resolve("dense_topk_hash", arms, "tiny", few)
    found = step.step("a title", experiments, "dense", repeats=3, directory=tmp_path)
    rows = {row["arm"]: row for row in found}
    assert rows["dense"]["ratio"] == 1 and rows["top2"]["ratio"] > 0
    assert list(rows) == ["data", *arms]
    assert "a title: one training step, 256 tokens, 3 repeats" in capsys.readouterr().out
    shares = {row["arm"]: row for row in json.loads((tmp_path / "step.json").read_text())["parts"]}
    assert set(shares["top2"]) - {"arm", "step_s"} == set(parts.PARTS) - {"dense ffn"}
    assert "routing" not in shares["dense"] and shares["dense"]["dense ffn"] > 0
    for row in shares.values():
        np.testing.assert_allclose(sum(row[part] for part in parts.PARTS if part in row), 1)
