"""A run whose loss is no number leaves a record, which stays until the run has come to its end."""

import types

import pytest

from experiments.report.report import report, table
from experiments.results.folder import Task
from experiments.runner import task as tasks
from experiments.select import resolve
from moe.data import loader
from moe.training import loop
from tests.fakes.data import SyntheticDataset
from tests.fakes.study import load, write_study

SMALL = ("train.steps=2", "train.batch=2", "data.sequence_length=16", "model.model_width=32")


def test_it_is_on_record_until_the_run_has_ended(tmp_path, monkeypatch):
    """A restart removed the record before its first step: killed there, nothing told of it."""
    experiment = resolve("dense_topk_hash", ["dense"], "tiny", SMALL)["dense"]
    task = Task("dense_topk_hash", "tiny", "dense", experiment, (0,), tmp_path)
    record, rows = task.directory(0) / "diverged.txt", []
    monkeypatch.setattr(loader, "load", lambda data, V: SyntheticDataset(V))

    def run_with(train):
        monkeypatch.setattr(loop, "train", train)
        tasks.run_task(task, lambda seed, row: rows.append(row["kind"]))

    def diverge(*words):
        raise FloatingPointError("the loss is not finite at step 2")

    def be_killed(*words):
        raise KeyboardInterrupt

    run_with(diverge)
    assert record.read_text() == "the loss is not finite at step 2\n" and rows[-1] == "diverged"
    with pytest.raises(KeyboardInterrupt):
        run_with(be_killed)
    assert record.exists()
    result = types.SimpleNamespace(write=lambda directory: None)
    monkeypatch.setattr(tasks, "_result", lambda *words: result)
    run_with(lambda *words: types.SimpleNamespace(seconds={"stepping": 1.0}))
    assert not record.exists() and rows[-1] == "finished"


def test_a_study_of_which_every_run_diverged_has_a_report(tmp_path, undrawn):
    """It was "no finished run": what happened was nowhere to be read."""
    directory = write_study(tmp_path, arms=("dense", "top1"))
    for result in directory.glob("*/seed*/result.json"):
        result.unlink()
        (result.parent / "diverged.txt").write_text("the loss is not finite at step 2\n")
    report(directory)
    assert [one["verdict"] for one in load(directory)["arms"].values()] == ["diverged"] * 2
    assert table(directory).count("diverged (seed 0, 1, 2)") == 2
    (one,) = load(directory)["outcomes"]
    assert (one["verdict"], one["reason"]) == (
        "undecided",
        "a run of top1 and of dense diverged",
    )
    assert "--arms=dense,top1" in (directory / "report.html").read_text()


def test_a_diverged_seed_leaves_its_expectations_undecided(tmp_path, undrawn):
    directory = write_study(tmp_path, arms=("dense", "top1", "hash_random"))
    (directory / "top1" / "seed1" / "result.json").unlink()
    (directory / "top1" / "seed1" / "diverged.txt").write_text("at step 2\n")
    report(directory)
    found = {(one["arm"], one["against"]): one for one in load(directory)["outcomes"]}
    assert [one["verdict"] for one in found.values()] == ["undecided", "supported", "undecided"]
    assert found["hash_random", "top1"]["reason"] == "a run of top1 diverged"
    assert "4.4950 ± 0.0071 (seed 1 diverged)" in (directory / "results.md").read_text()
    assert (
        "nothing is compared: undecided, a run of top1 diverged." in load(directory)["answers"][1]
    )
