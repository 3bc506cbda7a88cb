"""What a run says of itself: MFU, goodput, progress, profiles, Weights & Biases; signals, locks."""

import importlib.machinery
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.runner import request
from moe.checkpoint import places, restore
from moe.training import clock, loop, record, sinks
from tests.fakes.data import SyntheticDataset
from tests.training.test_train import DATASET, experiment


def test_goodput_adds_up(monkeypatch):
    ticks = iter([0.0, 1.0, 4.0, 5.0, 6.0, 10.0])
    monkeypatch.setattr(clock.time, "perf_counter", lambda: next(ticks))
    watch = clock.Clock()  # at 0
    with watch("stepping"):  # 1 to 4
        pass
    with pytest.raises(KeyError), watch("saving"):  # 5 to 6
        raise KeyError
    seconds = watch.seconds()  # at 10
    assert seconds["stepping"] == 3 and seconds["saving"] == 1 and seconds["other"] == 6
    assert clock.goodput(seconds) == 0.3
    assert clock.line(seconds) == "goodput 30% (other 6.0 s, stepping 3.0 s, saving 1.0 s)"


@pytest.fixture
def quick(monkeypatch):
    """A loop whose steps and evaluations cost nothing; `plan` may plant a NaN."""
    plan = {}

    def init(experiment, corpus):
        return loop.TrainState(jnp.int32(0), {"w_A": jnp.ones(3)}, {})

    def step(experiment, state, batch):
        n = int(state.step) + 1
        params = {"w_A": state.params["w_A"].at[1].set(plan.get(n, float(n)))}
        loss = jnp.nan if n == plan.get("loss") else 1.0 / n
        nothing = dict.fromkeys(("load_NE", "dropped_N"))
        record = types.SimpleNamespace(loss=loss, nats=loss, grad_norm=0.0, metrics={}, **nothing)
        monkeypatch.setattr(loop.jax, "block_until_ready", lambda tree: tree)
        return loop.TrainState(jnp.int32(n), params, {}), record

    class Evaluation:
        val_loss = 2.0

        def row(self, experiment, step):
            return {"kind": "eval", "step": step, "tokens": step, "val_loss": 2.0}

    monkeypatch.setattr(loop, "init", init)
    monkeypatch.setattr(loop, "train_step", step)
    monkeypatch.setattr(loop, "evaluate", lambda *arguments: Evaluation())
    return plan


def test_a_nan_in_the_parameters_is_never_saved(quick, tmp_path):
    quick[8] = float("nan")  # the loss of step 8 is still fine
    with pytest.raises(FloatingPointError, match="params/w_A is not finite at step 8: .*4 is kept"):
        loop.train(experiment(), DATASET, tmp_path, "text")
    assert places.at(tmp_path / "checkpoints").steps() == [0, 4]
    np.testing.assert_array_equal(
        restore.restore_params(tmp_path / "checkpoints")["w_A"], [1, 4, 1]
    )


def test_a_nan_in_the_loss_stops_at_its_step(quick, tmp_path):
    quick["loss"] = 7  # between two logs, evaluations and saves
    with pytest.raises(FloatingPointError, match=f"loss=nan at step 7 in {tmp_path}"):
        loop.train(experiment(), DATASET, tmp_path, "text")
    assert places.at(tmp_path / "checkpoints").steps() == [0, 4]
    assert record.read(tmp_path / "metrics.jsonl")[-1]["step"] == 7


def test_a_stop_saves_its_step_and_the_run_goes_on_from_there(quick, tmp_path):
    seen = []

    def log(row):
        seen.append(row["step"])

    with pytest.raises(loop.Stopped, match="saved at step 5"):
        loop.train(experiment(), DATASET, tmp_path, "text", log, lambda: len(seen) >= 5)
    assert places.at(tmp_path / "checkpoints").steps() == [0, 4, 5]
    result = loop.train(experiment(), DATASET, tmp_path, "text")
    assert result.resumed_from == 5 and int(result.state.step) == 12
    kinds = [(row["kind"], row["step"]) for row in record.read(tmp_path / "metrics.jsonl")]
    assert kinds == [("train", 4), ("eval", 6), ("train", 8), ("train", 12), ("eval", 12)]


def test_other_data_are_refused(quick, tmp_path):
    loop.train(experiment(), DATASET, tmp_path, "text")
    other = SyntheticDataset()
    other.tokenizer_fingerprint = "another"
    with pytest.raises(ValueError, match=r"another tokenizer \(\w+ there, another here\)"):
        loop.train(experiment(), other, tmp_path, "text")


def test_a_profile_of_some_steps(quick, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(jax.profiler, "start_trace", lambda place: calls.append(place))
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: calls.append("stop"))
    steps = []
    watch = sinks.Watch(profile=(3, 5))

    def log(row):
        if row["kind"] == "step":
            steps.append((row["step"], len(calls)))

    loop.train(experiment(), DATASET, tmp_path, "text", log, watch=watch)
    assert calls == [str(tmp_path / "profile"), "stop"]
    # Nothing before step 3; started before it; stopped before step 6.
    assert [n for _, n in steps] == [0, 0, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2]


def test_a_profile_can_be_opened(tmp_path):
    log = record.MetricsLog(tmp_path, 0, sinks.Watch(profile=(1, 2)))
    for step in (1, 2, 3):
        log.watch_step(step)
        jnp.sin(jnp.ones(8)).block_until_ready()
    log.close()
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))


def test_weights_and_biases_by_a_stand_in(tmp_path, monkeypatch):
    begun, rows = [], []

    class Run:
        def log(self, numbers, step):
            rows.append((step, numbers))

        def finish(self):
            rows.append("finished")

    stand_in = types.ModuleType("wandb")
    stand_in.__spec__ = importlib.machinery.ModuleSpec("wandb", None)
    stand_in.init = lambda **named: begun.append(named) or Run()
    monkeypatch.setitem(sys.modules, "wandb", stand_in)
    for _ in range(2):
        log = record.MetricsLog(tmp_path, 0, sinks.Watch(wandb="mine", name="a/b"))
        log.write({"kind": "train", "step": 3, "loss": 1.5})
        log.close()
    assert begun[0] == begun[1] and begun[0]["project"] == "mine" and begun[0]["name"] == "a/b"
    assert rows == [(3, {"train/loss": 1.5}), "finished"] * 2
    # The id is of the run, not of its place: it goes with the folder, and another run that takes
    # the place has another.
    moved = tmp_path.rename(tmp_path.with_name("moved"))
    for directory, copy in ((moved, None), (tmp_path, None), (tmp_path / "x", moved)):
        directory.mkdir(exist_ok=True)
        watch, place = sinks.Watch(wandb="mine"), None if copy is None else places.at(copy)
        record.MetricsLog(directory, 0, watch, place).close()
    ids = [named["id"] for named in begun]
    assert ids[0] == ids[1] == ids[2] == ids[4] != ids[3]  # the last one has a copy of the first
    assert (tmp_path / "x" / sinks.ID).read_text() == (moved / sinks.ID).read_text()


@pytest.mark.parametrize("text", ["", "../x", "0123456789abcde", "0123456789abcdef0"])
def test_an_id_that_is_none_is_one_line(text, tmp_path):
    (tmp_path / sinks.ID).write_text(text)
    with pytest.raises(ValueError, match=r"wandb\.txt: is no id of a run; remove it, and the run"):
        sinks.identity(tmp_path / sinks.ID)


def test_the_record_is_strict_json(tmp_path):
    """NaN is no JSON: what reads JSON lines elsewhere would refuse the file."""
    (tmp_path / "metrics.jsonl").write_text('{"kind": "train", "step": 1, "loss": NaN}\n')
    log = record.MetricsLog(tmp_path, 2)
    log.write({"kind": "train", "step": 3, "loss": float("nan"), "router": {"drop": [np.inf, 0.5]}})
    log.close()
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [line.partition(', "seal"')[0].removesuffix("}") for line in lines] == [
        '{"kind": "train", "step": 1, "loss": null',
        '{"kind": "train", "step": 3, "loss": null, "router": {"drop": [null, 0.5]',
    ]


def test_weights_and_biases_not_installed_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(request.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="^--wandb=mine: needs a package that is missing; pip ins"):
        request.Request("dense_topk_hash", tmp_path, ["top1"], wandb="mine")
    asked = request.Request("dense_topk_hash", tmp_path, ["top1"], profile="3:5")
    assert asked.profiled() == (3, 5) and asked.wandb is None


def test_garbage_in_a_record_of_before_is_left_out_and_said(tmp_path):
    """Rows of before have no seal; what is no row is none of them."""
    good = '{"kind": "train", "step": 1}\n'
    for bad in (b"\xff\xfe\n", b"[1]\n", b"12\n", b'{"kind": "train"}\n', b'{"step": "x"}\n'):
        (tmp_path / "metrics.jsonl").write_bytes(good.encode() + bad + good.encode())
        assert record.read(tmp_path / "metrics.jsonl") == [{"kind": "train", "step": 1}] * 2
        log = record.MetricsLog(tmp_path, resume_step=1)
        log.close()
        (line,) = log.gaps(expected=1)
        assert "line 2 does not follow from the line before" in line


def test_notices_are_printed(capsys):
    loop.notices({"kind": "notice", "message": "one line"})
    loop.notices({"kind": "step", "step": 1})
    assert capsys.readouterr().err == "one line\n"
