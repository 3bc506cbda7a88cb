"""The benchmark of reading data: its row and its file; no time is asserted."""

import json

import pytest

from experiments.bench import data
from experiments.select import resolve
from moe.data import loader
from tests.fakes.data import SyntheticDataset

SMALL = ["train.batch=2", "data.sequence_length=16", "model.model_width=32", "model.vocab_size=300"]


@pytest.mark.slow
def test_reading_is_timed_alone_and_in_the_loop(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(loader, "load", lambda data, V: SyntheticDataset(V, data.sequence_length))
    experiment = resolve("dense_topk_hash", ("dense",), "tiny", SMALL)["dense"]
    row = data.data("a title", experiment, batches=20, steps=4, directory=tmp_path)
    assert row["tokens_per_s"] == pytest.approx(row["batches_per_s"] * 2 * 16)
    assert 0 < row["share"] < 1 and row["wait_s"] > 0 and row["step_s"] > 0
    assert json.loads((tmp_path / "data.json").read_text()) == row
    out = capsys.readouterr().out
    assert "a title, data.source=packages: batches of 2 x 16 tokens" in out
    assert f"(target 5%: {'met' if row['share'] <= 0.05 else 'missed'})" in out
