"""Tuning by grids: what is chosen, how a grid goes on, what is not trained again, refused."""

import dataclasses
import json
import math

import pytest

from experiments.report import report
from experiments.results import tuning
from experiments.results.folder import DIVERGED
from experiments.runner import run, tune
from experiments.runner.request import Request
from experiments.studies.plan import Grid, Lengths, Tuning
from moe import registry
from moe.registry import Mistake
from tests.fakes.data import SMALL, on_synthetic_text
from tests.fakes.study import result_record

STUDY, RATE = "dense_topk_hash", "optimizer.learning_rate"
BALANCE = "model.moe.router.losses.load_balance"
RATES = (3e-3, 6e-3, 1.2e-2)
BEST = {"dense": 6e-3, "top1": 4.8e-2, "hash_random": 1e-3}


def declare(monkeypatch, *grids, lengths=None):
    declared = Tuning(grids, ("tiny",), (7, 8), share=0.25)
    study = dataclasses.replace(registry.lookup("study", STUDY), tuning=declared, lengths=lengths)
    monkeypatch.setattr(registry, "lookup", _first({("study", STUDY): study}, registry.lookup))


def _first(found, otherwise):
    return lambda kind, name: found.get((kind, name)) or otherwise(kind, name)


class Bench:
    """Trains nothing: a loss that is quadratic in the log of the rate, best at BEST."""

    def __init__(self, diverges_above=math.inf):
        self.trained, self.limit = [], diverges_above

    def __call__(self, tasks):
        for task in tasks:
            rate = task.experiment.optimizer.learning_rate
            arm = task.arm.partition("@")[0]
            self.trained.append(task.arm)
            for seed in task.seeds:
                folder = task.directory(seed)
                folder.mkdir(parents=True)
                if rate > self.limit:
                    (folder / DIVERGED).write_text("not finite\n")
                    continue
                loss = 4 + math.log2(rate / BEST[arm]) ** 2 + (0.01 if seed == 8 else -0.01)
                record = result_record(task.arm, seed, loss)
                (folder / "result.json").write_text(json.dumps(record))


def ask(tmp_path, *overrides, arms=tuple(BEST), seeds=(0,)):
    return Request(STUDY, tmp_path, arms, seeds=seeds, overrides=["train.steps=40", *overrides])


def tuned(request, train):
    return tune.tuned(request, tune.declared(request), train)


def test_each_arm_takes_its_own_best_and_a_best_at_an_end_goes_on(tmp_path, monkeypatch):
    declare(monkeypatch, Grid(RATE, RATES))
    bench = Bench()
    found = tuned(ask(tmp_path), bench)
    rates = {arm: experiment.optimizer.learning_rate for arm, experiment in found.items()}
    # dense has its best inside. top1 goes on by ratios of 2 to .024 and .048, which is the last of
    # its grid, so once more to .096. hash_random goes on to .0015 and .00075: log2(1.5)^2 = .342,
    # log2(.75)^2 = .172; then .000375 is worse.
    assert rates == {"dense": 6e-3, "top1": 4.8e-2, "hash_random": 7.5e-4}
    assert {arm: e.train.steps for arm, e in found.items()} == dict.fromkeys(BEST, 40)
    first = next(one for one in tuning.read(tmp_path) if one.arm == "top1")
    assert first.tried == [3e-3, 6e-3, 1.2e-2, 2.4e-2, 4.8e-2, 9.6e-2] and not first.at_edge
    assert first.steps == 10  # a quarter of 40
    assert first.losses[4.8e-2] == (3.99, 4.01) and first.mean(4.8e-2) == 4.0
    assert len(bench.trained) == 3 * 3 + 2 * 3 and len(set(bench.trained)) == len(bench.trained)
    again = Bench()
    assert tuned(ask(tmp_path, seeds=(0, 1)), again) == found and not again.trained


def test_a_grid_ends_somewhere_and_says_so(tmp_path, monkeypatch):
    declare(monkeypatch, Grid(RATE, (1e-4, 2e-4)))
    found = tuned(ask(tmp_path, arms=("top1",)), Bench())
    choice = tuning.read(tmp_path)[0]
    assert found["top1"].optimizer.learning_rate == choice.value == 1.6e-3  # 3 values more
    assert choice.at_edge == 1


def test_a_value_that_diverges_is_not_taken_nor_tried_again(tmp_path, monkeypatch):
    declare(monkeypatch, Grid(RATE, RATES))
    bench = Bench(diverges_above=7e-3)
    found = tuned(ask(tmp_path, arms=("top1",)), bench)
    assert found["top1"].optimizer.learning_rate == 6e-3
    assert tuning.read(tmp_path)[0].losses[1.2e-2] == (None, None)
    again = Bench()
    tuned(ask(tmp_path, arms=("top1",)), again)
    assert not again.trained


def test_what_is_set_or_off_or_of_another_size_is_not_tuned(tmp_path, monkeypatch):
    declare(monkeypatch, Grid(RATE, RATES), Grid(BALANCE, (0.01, 0.02)))
    request = ask(tmp_path, f"{RATE}=0.004", f"{BALANCE}=0")
    assert tune.declared(request) is None
    # dense has no such field, and frozen1 has it at 0: its router does not learn.
    request = ask(tmp_path, f"{RATE}=0.004", arms=("dense", "top1", "frozen1"))
    bench = Bench()
    found = tuned(request, bench)
    assert {one.partition("@")[0] for one in bench.trained} == {"top1"}
    assert found["dense"].optimizer.learning_rate == 0.004
    assert tune.declared(Request(STUDY, tmp_path, size="small", seeds=(0,))) is None


def test_seeds_of_the_tuning_are_not_used_again(tmp_path, monkeypatch):
    declare(monkeypatch, Grid(RATE, RATES))
    with pytest.raises(Mistake, match=r"--seeds: 8 is one that dense_topk_hash tunes on \(7, 8\)"):
        tuned(ask(tmp_path, seeds=(0, 8)), Bench())


def test_a_changed_record_is_told(tmp_path, monkeypatch):
    declare(monkeypatch, Grid(RATE, RATES))
    tuned(ask(tmp_path, arms=("dense",)), Bench())
    path = tmp_path / tuning.FILE
    path.write_text(path.read_text().replace("0.006", "0.016", 1))
    with pytest.raises(Mistake, match="its seal does not fit"):
        tuning.read(tmp_path)
    assert tuning.read(tmp_path / "elsewhere") == []


@pytest.mark.slow
def test_a_study_tunes_runs_goes_on_and_tells_it(tmp_path, monkeypatch):
    on_synthetic_text(monkeypatch)
    declare(monkeypatch, Grid(RATE, (1e-3, 2e-3)), lengths=Lengths((0.5,), ("tiny",)))
    monkeypatch.setattr(tune, "WIDENED", 0)
    seen = []

    def ask_for(seeds):
        small = [*SMALL, "train.eval_every=6"]
        request = Request(STUDY, tmp_path, ("dense", "top1"), seeds=seeds, overrides=small)
        run.run(request, lambda arm, seed, row: seen.append((arm, seed)))

    ask_for((0,))
    assert set(seen) == {("dense", 0), ("top1", 0)}  # what tunes shows no rows
    choices = {one.arm: one for one in tuning.read(tmp_path)}
    trial = tmp_path / tuning.FOLDER / "top1@learning_rate=0.002" / "seed8"
    found = json.loads((trial / "result.json").read_text())
    assert found["val_loss"] == choices["top1"].losses[2e-3][1]
    assert found["steps"] == choices["top1"].steps == 2  # a quarter of 6, rounded to even
    text = (tmp_path / "top1/seed0/experiment.txt").read_text()
    assert f"learning_rate={choices['top1'].value!r}" in text
    before = (trial / "result.json").read_bytes()
    seen.clear()
    ask_for((0, 1))
    assert set(seen) == {("dense", 1), ("top1", 1)}  # at both lengths
    assert (trial / "result.json").read_bytes() == before
    short = json.loads((tmp_path / "lengths/3/top1/seed1/result.json").read_text())
    assert (short["steps"], short["tokens"]) == (3, 3 * 2 * 16)
    text = (tmp_path / "lengths/3/top1/seed1/experiment.txt").read_text()
    assert f"learning_rate={choices['top1'].value!r}" in text and "eval_every=3" in text
    page = report.report(tmp_path).read_text()
    assert "By length of training" in page
    assert "Tuned alike before the runs" in page and f"{choices['top1'].mean(1e-3):.4f}" in page
    told = json.loads((tmp_path / "results.json").read_text())
    assert told["tuning"]["seeds"] == [7, 8] and len(told["tuned"]) == 2
    assert "is the highest that was tried" in (tmp_path / "results.md").read_text() or all(
        one.at_edge < 0 for one in choices.values()
    )
    # What was declared of the tuning holds.
    declare(monkeypatch, Grid(RATE, (1e-3, 3e-3)))
    with pytest.raises(Mistake, match="tuning.grids"):
        ask_for((0,))
