"""A study from its name to results on disk: resuming, refusing, repeating, surviving a kill."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import pytest

from experiments.figures import live
from experiments.report import report
from experiments.results import runs
from experiments.runner import run, workers
from experiments.runner.request import Request
from moe.data import tokenizer
from tests.fakes.data import SMALL, SyntheticDataset, on_synthetic_text

ROOT = pathlib.Path(__file__).parents[2]
STUDY = "dense_topk_hash"


@pytest.fixture
def synthetic(monkeypatch):
    on_synthetic_text(monkeypatch)


def study(workdir, arms=("dense", "top1"), seeds=(0,), overrides=(), on_log=None, **more):
    asked = Request(STUDY, workdir, arms, seeds=seeds, overrides=[*SMALL, *overrides], **more)
    run.run(asked, on_log or (lambda *row: None))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A study of two arms that has run; whoever changes it takes a copy."""
    workdir = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        on_synthetic_text(patch)
        study(workdir)
    return workdir


def without_times(directory):
    results = json.loads((directory / "results.json").read_text())

    def strip(tree):
        if isinstance(tree, dict):
            return {k: strip(v) for k, v in tree.items() if k != "timing"}
        return [strip(v) for v in tree] if isinstance(tree, list) else tree

    return strip(results)


@pytest.mark.slow
def test_a_study_runs_reports_and_resumes(synthetic, tmp_path, capsys):
    curves = live.LiveCurves("dense_topk_hash", every_s=1e9)
    curves.draw = lambda: None  # there is no notebook here
    study(tmp_path, on_log=curves)
    assert "top1 seed 0: " in capsys.readouterr().err
    assert len(curves.train["top1", 0]) == 3 and len(curves.held_out["top1", 0]) == 2
    assert len(curves.figure().axes[0].lines) == 4  # two runs, a line and points each
    page = report.report(tmp_path)
    assert page.exists() and "unigram entropy" in report.table(tmp_path)
    result = json.loads((tmp_path / "top1/seed0/result.json").read_text())
    assert (
        result["tokens"] == 6 * 2 * 16 and result["params_by_part"]["router"] == 2 * 32 * 8
    )  # two layers
    assert result["router"]["causal"] and result["environment"]["data_fingerprint"] == "synthetic"
    before = (tmp_path / "top1/seed0/result.json").read_bytes()
    seen = []
    study(tmp_path, seeds=(0, 1), on_log=lambda *row: seen.append(row[:2]))
    assert set(seen) == {("dense", 1), ("top1", 1)}  # seed 0 is there already
    assert (tmp_path / "top1/seed0/result.json").read_bytes() == before
    assert json.loads((tmp_path / "study.json").read_text())["seeds"] == [0, 1]


def test_the_record_of_an_experiment_rebuilds_it(finished):
    text = (finished / "top1/seed0/experiment.txt").read_text()
    imports, expression = text.split("\n\n", 1)
    names = {}
    exec(imports, names)
    from experiments.select import resolve

    want = resolve("dense_topk_hash", ("top1",), "tiny", SMALL)["top1"]
    assert eval(expression, names) == want


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (
            {"overrides": ["train.steps=8"]},
            "experiment.txt: holds another experiment .steps=6.* th",
        ),
        ({"arms": ("nonsense",)}, "dense_topk_hash/nonsense: no such arm"),
    ],
)
def test_a_workdir_of_another_experiment_is_refused_untouched(synthetic, finished, change, line):
    before = {p: p.stat().st_mtime_ns for p in finished.rglob("*")}
    with pytest.raises(ValueError, match=line):
        study(finished, **change)
    assert {p: p.stat().st_mtime_ns for p in finished.rglob("*")} == before


def test_a_workdir_of_another_size_is_refused(synthetic, finished):
    with pytest.raises(ValueError, match="study.json: size is 'tiny' there, 'small' asked"):
        study(finished, ("top2",), size="small")


def test_checkpoints_elsewhere_are_gone_on_with_and_not_forgotten(synthetic, tmp_path):
    workdir, place = tmp_path / "runs", str(tmp_path / "elsewhere")
    study(workdir, ("dense",), checkpoints=place)
    first, rows = workdir / "dense/seed0", (workdir / "dense/seed0/metrics.jsonl").read_text()
    assert not (first / "checkpoints").exists()
    assert (tmp_path / "elsewhere/dense/seed0/metrics.jsonl").read_text() == rows
    result = json.loads((first / "result.json").read_text())
    (first / "result.json").unlink()
    for other in (None, str(tmp_path / "other")):
        line = f"--checkpoints={other or ''}: {first} has its checkpoints in {place}; go on there"
        with pytest.raises(ValueError, match=line):
            study(workdir, ("dense",), checkpoints=other)
    shutil.rmtree(workdir)  # as on another machine: no step is left to take
    study(workdir, ("dense",), checkpoints=place)
    assert json.loads((first / "result.json").read_text())["val_loss"] == result["val_loss"]
    assert (first / "metrics.jsonl").read_text() == rows


@pytest.mark.slow
def test_a_run_that_diverges_does_not_stop_the_others(synthetic, tmp_path, capsys):
    # Without clipping, a huge learning rate overflows at once; the report names the run.
    study(tmp_path, arms=("dense",), overrides=["train.save_every=6"])
    study(
        tmp_path / "bad",
        arms=("dense", "top1"),
        overrides=["optimizer.learning_rate=1e30", "optimizer.clip=0"],
    )
    assert "is not finite at step 2: the run stops" in capsys.readouterr().err
    assert not (tmp_path / "bad/dense/seed0/result.json").exists()
    assert "at step 2" in (tmp_path / "bad/dense/seed0/diverged.txt").read_text()
    assert runs._run(tmp_path / "bad", "dense", 0, {}, []).status == runs.DIVERGED
    report.report(tmp_path / "bad")
    text = (tmp_path / "bad/results.md").read_text()
    assert "| dense | diverged (seed 0) |" in text and "- top1: seed 0 diverged." in text


def test_tasks_go_to_processes_dearest_first_and_their_rows_come_back(
    synthetic, tmp_path, monkeypatch
):
    sent = []

    def here(tasks, jobs, progress, stopping):
        sent.append(([task.arm for task in tasks], jobs))
        for task in tasks:
            progress.take(task.arm, 0, {"kind": "step", "step": 6})

    monkeypatch.setattr(workers, "_run_processes", here)
    monkeypatch.setattr(workers, "_accelerator", lambda: False)
    arms = ("dense", "dense_total")
    run.run(Request(STUDY, tmp_path, arms, seeds=(0,), overrides=SMALL, jobs=7))
    assert sent == [(["dense_total", "dense"], 2)]


def command(workdir, *more):
    sets = [f"--set={assignment}" for assignment in SMALL + ["train.steps=12"]]
    return [
        sys.executable, "-m", "experiments", "run", "dense_topk_hash", f"--workdir={workdir}",
        "--arms=dense,hash_balanced", "--seeds=0", *sets, *more,
    ]  # fmt: skip


@pytest.mark.slow
def test_the_same_command_and_a_killed_one_give_the_same_results(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"

    def run_it(workdir, **settings):
        words, env = command(workdir), {**os.environ, **settings}
        subprocess.run(words, cwd=ROOT, env=env, check=True, capture_output=True, timeout=600)

    run_it(whole, JAX_ENABLE_COMPILATION_CACHE="false")  # compiled anew, unlike the others
    # Killed with its processes, at a moment when something is saved and nothing is finished.
    started = subprocess.Popen(
        command(killed), cwd=ROOT, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 300
    while not list(killed.glob("*/seed0/checkpoints/4")):
        assert time.monotonic() < deadline and started.poll() is None
        time.sleep(0.05)
    os.killpg(started.pid, signal.SIGKILL)
    started.wait()
    assert not (killed / "results.json").exists()
    run_it(killed)
    assert without_times(killed) == without_times(whole)
    table = (whole / "results.md").read_text()
    shutil.rmtree(whole / "figures")
    report.report(whole)
    assert (whole / "results.md").read_text() == table


@pytest.mark.slow
def test_processes_end_with_the_one_that_started_them(tmp_path):
    started = subprocess.Popen(
        command(tmp_path, "--set=train.steps=100000"), cwd=ROOT,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 300
    while not list(tmp_path.glob("*/seed0/metrics.jsonl")):
        assert time.monotonic() < deadline and started.poll() is None
        time.sleep(0.05)
    children = subprocess.run(
        ["ps", "--ppid", str(started.pid), "-o", "pid="], capture_output=True, text=True
    ).stdout.split()
    assert children
    started.kill()  # the parent alone, and without a chance to clean up
    started.wait()
    while any(pathlib.Path(f"/proc/{pid}").exists() for pid in children):
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.slow
def test_an_arm_that_fails_stops_the_others_and_is_told(tmp_path):
    (tmp_path / "dense/seed0/.lock").mkdir(parents=True)  # seen when the run takes its folder
    more = ["--set=train.steps=100000", "--set=train.log_every=1"]
    found = subprocess.run(
        command(tmp_path, *more), cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert found.returncode == 2
    assert found.stderr.splitlines()[-1].startswith(f"error: dense: {tmp_path}/dense/seed0/.lock: ")
    assert not list(tmp_path.glob("*/*/result.json"))


def test_a_run_keeps_its_tokeniser(finished):
    saved = tokenizer.read(finished / "dense/seed0/tokenizer.json")
    assert saved.fingerprint == SyntheticDataset.tokenizer_fingerprint


def test_routers_must_expect_the_labels_of_the_text(synthetic, tmp_path):
    words = ["data.source=folder:/texts", "model.moe.router=labelled"]
    line = (
        "model.moe.router.labels=5: must be 3, the number of labels that data.source=folder:/texts"
    )
    with pytest.raises(ValueError, match=line):
        study(tmp_path, ["top1"], overrides=words)


def test_epochs_are_told_and_too_many_are_refused(synthetic, tmp_path, monkeypatch, capsys):
    # 6 steps of 2 windows of 16 tokens: 192 tokens.
    monkeypatch.setattr(SyntheticDataset, "one_pass", 40)
    line = (
        "^train.max_epochs=4: train.steps=6 takes 4.80 epochs: 192 training tokens, 40 in one "
        "pass; repeated text is learned by heart; take fewer steps, a longer data.source, or set "
        "train.max_epochs=5$"
    )
    with pytest.raises(ValueError, match=line):
        study(tmp_path, ["dense"])
    assert not (tmp_path / "dense").exists()
    study(tmp_path, ["dense"], overrides=["train.max_epochs=5"])
    assert "dense seed 0: 4.80 epochs: 192 training tokens" in capsys.readouterr().err
    # The field is no part of a run, so a finished one is that of another limit too.
    study(tmp_path, ["dense"])
    monkeypatch.setattr(SyntheticDataset, "one_pass", 96)
    study(tmp_path / "b", ["dense"])
    assert "dense seed 0: 2.00 epochs: 192 training tokens, 96 in one pass\n" in (
        capsys.readouterr().err
    )
