"""Training: resuming is exact, splits change nothing, the mask holds, trouble stops the run."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from moe import params
from moe.analysis import load
from moe.data.data import Data
from moe.experiment import Experiment, Train
from moe.experts.feed_forward import SwiGLU
from moe.model.attention import Attention
from moe.model.layer import MoE
from moe.model.transformer import Transformer
from moe.optimizer.adamw import Optimizer
from moe.optimizer.schedules import WarmupCosine, WarmupStableDecay
from moe.params import decayed
from moe.routers.hash import BALANCED
from moe.routers.top_k import TopK
from moe.training import loop, record, sinks, step
from tests.fakes.data import SyntheticDataset

DATASET = SyntheticDataset()


def experiment(router=TopK(k=1), **changes):  # noqa: B008
    moe = router and MoE(num_experts=4, router=router, experts=SwiGLU(16))
    model = Transformer(
        vocab_size=32,
        num_layers=2,
        model_width=16,
        attention=Attention(2, 1, 8),
        ffn=SwiGLU(16),
        moe=moe,
        moe_layers=(0, 1) if router else (),
    )
    run = Train(steps=12, batch=4, log_every=4, eval_every=6, save_every=4)
    return Experiment(
        model, Data(sequence_length=16), train=dataclasses.replace(run, **changes), seed=5
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    directory = tmp_path_factory.mktemp("finished")
    rows = []
    result = loop.train(experiment(), DATASET, directory, "text", rows.append)
    return directory, result, rows


def same(one, two):
    jax.tree.map(np.testing.assert_array_equal, one, two)


def test_a_killed_run_resumes_exactly(finished, tmp_path):
    directory, result, _ = finished

    class Killed(Exception):
        pass

    def die(row):
        if row["kind"] == "step" and row["step"] == 10:
            raise Killed

    with pytest.raises(Killed):
        loop.train(experiment(), DATASET, tmp_path, "text", die)
    rows = []
    resumed = loop.train(experiment(), DATASET, tmp_path, "text", rows.append)
    assert resumed.resumed_from == 8  # the last multiple of save_every before 10
    assert [row["step"] for row in rows if row["kind"] == "step"] == [9, 10, 11, 12]
    same(resumed.state, result.state)
    assert resumed.evaluation.val_loss == result.evaluation.val_loss

    def recorded(path):
        rows = record.read(path / "metrics.jsonl")
        return [{k: v for k, v in row.items() if k not in ("tokens_per_s", "mfu")} for row in rows]

    assert recorded(tmp_path) == recorded(directory)


def test_a_finished_run_is_only_evaluated_again(finished):
    directory, result, _ = finished
    before = (directory / "metrics.jsonl").read_text()
    again = loop.train(experiment(), DATASET, directory, "text")
    assert again.resumed_from == 12 and again.evaluation.val_loss == result.evaluation.val_loss
    assert (directory / "metrics.jsonl").read_text() == before


def test_the_record_of_a_run(finished):
    directory, result, rows = finished
    kinds = [(row["kind"], row["step"]) for row in rows if row["kind"] != "step"]
    assert kinds == [
        ("train", 4), ("eval", 6), ("train", 8), ("train", 12), ("eval", 12),
    ]  # fmt: skip
    # Before the end: as many batches of 4 as there are desks, 4 of 5 windows of 16 in each of them.
    looks = [row["held_out_tokens"] for row in rows if row["kind"] == "eval"]
    assert looks == [3 * 4 * 16, 3 * 5 * 16]
    last = record.read(directory / "metrics.jsonl")[-1]
    assert last["val_loss"] == result.evaluation.val_loss and last["tokens"] == 12 * 4 * 16
    row = next(row for row in rows if row["kind"] == "train")
    assert row["loss"] > row["nats"] and len(row["router"]["load_entropy"]) == 2
    assert list((directory / "tensorboard").glob("events*"))


def test_another_experiment_in_the_folder_is_refused(finished):
    with pytest.raises(ValueError, match="holds checkpoints of another experiment"):
        loop.train(experiment(), DATASET, finished[0], "other text")


@pytest.mark.parametrize(
    "router",
    [
        pytest.param(None, id="dense", marks=pytest.mark.slow),
        pytest.param(TopK(k=1), id="top1", marks=pytest.mark.slow),
        pytest.param(BALANCED, id="hash"),
    ],
)
def test_training_learns_and_leaves_state_alone(router):
    run = experiment(router, steps=60)
    state = step.init(run, DATASET.corpus)
    fixed = jax.tree.map(np.array, params.split_state(state.params)[1])
    losses = []
    for n in range(60):
        state, found = step.train_step(run, state, DATASET.batch(0, n, 4))
        losses.append(float(found.nats))
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.3
    same(params.split_state(state.params)[1], fixed)
    assert int(state.step) == 60


def test_every_learned_leaf_moves_in_one_step():
    run = experiment()
    state = step.init(run, DATASET.corpus)
    before = jax.tree.map(np.array, state.params)
    after, _ = step.train_step(run, state, DATASET.batch(0, 0, 4))
    moved = jax.tree.map(lambda a, b: bool(np.any(a != b)), before, after.params)
    assert all(jax.tree.leaves(moved)), moved


@pytest.mark.slow
def test_seeds_share_a_compilation():
    run = experiment(steps=13)
    state = step.init(run, DATASET.corpus)
    state, _ = step.train_step(run, state, DATASET.batch(0, 0, 4))
    before = step._train_step._cache_size()
    other = dataclasses.replace(run, seed=77)
    step.train_step(other, step.init(other, DATASET.corpus), DATASET.batch(77, 0, 4))
    assert step._train_step._cache_size() == before


@pytest.mark.slow
def test_donation_frees_the_state_and_changes_nothing():
    run = experiment()
    batch = DATASET.batch(0, 0, 4)
    # Compiled as outside of tests: the way that conftest.py sets rounds otherwise when it donates.
    usual = {"xla_cpu_use_fusion_emitters": True} if jax.__version_info__ < (0, 11) else None

    def stepped(donated):
        state = step.init(run, DATASET.corpus)
        take = jax.jit(
            step._train_step.__wrapped__, static_argnums=0, donate_argnums=donated,
            compiler_options=usual,
        )  # fmt: skip
        return take(dataclasses.replace(run, seed=0), state, batch, run.seed)

    same(stepped(donated=1), stepped(donated=()))
    state = step.init(run, DATASET.corpus)
    step.train_step(run, state, batch)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state))


def test_seeds_give_different_parameters_and_layers_different_tables():
    one, two = (
        step.init(dataclasses.replace(experiment(BALANCED), seed=s), DATASET.corpus).params
        for s in (0, 1)
    )
    assert np.any(one["embedding_VD"] != two["embedding_VD"])
    table_NVK = one["layers"]["block0"]["moe"]["router"]["state"]["expert_VK"]
    assert np.any(table_NVK[0] != table_NVK[1])


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    run = experiment(None, steps=8)
    run = dataclasses.replace(run, optimizer=Optimizer(learning_rate=1e30, clip=0.0))
    with pytest.raises(FloatingPointError, match="loss=nan at step 3 in .*lower optimizer.learn"):
        loop.train(run, DATASET, tmp_path, "text")
    row = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])
    assert row["step"] == 3 and row["nats"] is None


def test_weight_decay_is_for_matrices_only():
    tree = {"w_in_EDF": 1, "scale": 1, "embedding_VD": 1, "moe": {"router": {"w_DE": 1}}}
    assert decayed(tree) == {
        "w_in_EDF": True, "scale": False, "embedding_VD": False, "moe": {"router": {"w_DE": True}},
    }  # fmt: skip


def test_decay_shrinks_matrices_without_gradient():
    optimizer = Optimizer(learning_rate=0.5, weight_decay=0.1, schedule=WarmupStableDecay(0, 0, 1))
    params = {"w_A": jnp.ones(1), "norm_A": jnp.ones(1)}
    transformation = optimizer.transformation(10)
    zero = jax.tree.map(jnp.zeros_like, params)
    updates, _ = transformation.update(zero, transformation.init(params), params)
    moved = optax.apply_updates(params, updates)
    np.testing.assert_allclose(moved["w_A"], [1 - 0.5 * 0.1], rtol=1e-6)
    np.testing.assert_array_equal(moved["norm_A"], [1])


def test_schedules_by_hand():
    # 10 steps: 2 of warm-up to 1.0, 4 on the plateau, 4 down to 0.2.
    schedule = WarmupStableDecay(warmup=0.2, decay=0.4, final=0.2)(1.0, 10)
    got = [float(schedule(step)) for step in range(10)]
    np.testing.assert_allclose(got, [0.5, 1, 1, 1, 1, 1, 1, 0.8, 0.6, 0.4], rtol=1e-6)
    cosine = WarmupCosine(warmup=0.2, final=0.1)(1.0, 10)
    # Half-way down the cosine, step 2 + 8/2: (1 + 0.1)/2.
    np.testing.assert_allclose([cosine(0), cosine(2), cosine(6)], [0.5, 1.0, 0.55], rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"train": Train(steps=0)}, "train.steps=0: must be >= 1"),
        ({"train": Train(keep_last=0)}, "train.keep_last=0: must be >= 1"),
        ({"train": Train(keep_best=-1)}, "train.keep_best=-1: must be >= 0"),
        ({"train": Train(batch=6, accumulate=4)}, "train.accumulate=4: must divide batch=6"),
        ({"optimizer": Optimizer(clip=-1.0)}, "optimizer.clip=-1.0: must be a number >= 0"),
        ({"optimizer": Optimizer(eps=0.0)}, "optimizer.eps=0.0: must be a number > 0"),
        ({"optimizer": Optimizer(b2=1.0)}, r"optimizer.b2=1.0: must be in \[0, 1\)"),
        (
            {"optimizer": Optimizer(schedule=WarmupStableDecay(0.8, 0.4))},
            "optimizer.schedule.decay=0.4: warmup .* <= 1, and optimizer.schedule.warmup=0.8",
        ),
        (
            {"optimizer": Optimizer(schedule=WarmupCosine(warmup=2.0))},
            r"optimizer.schedule.warmup=2.0: must be in \[0, 1\]",
        ),
        ({"seed": -1}, r"seed=-1: must be in \[0, 2\^31\)"),
    ],
)
def test_impossible_experiments_are_one_line(change, line):
    good = dataclasses.replace(experiment(), model=experiment().model.clone(vocab_size=2048))
    assert good.validate() is good
    with pytest.raises(ValueError, match=f"^{line}$"):
        dataclasses.replace(good, **change).validate()


def test_the_record_survives_a_line_that_was_cut_off(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"kind": "train", "step": 1}\n{"kind": "train", "step": 2}\n{"kind": "tr')
    log = record.MetricsLog(tmp_path, resume_step=1)
    log.write({"kind": "train", "step": 2, "loss": 1.5, "router": {"load": [0.5, 0.25]}})
    log.close()
    assert [row.get("loss") for row in record.read(path)] == [None, 1.5]
    named = dict(sinks.scalars({"kind": "t", "step": 2, "a": 1.5, "router": {"load": [0.5]}}))
    assert named == {"a": 1.5, "router/load/0": 0.5}


def test_load_metrics_by_hand():
    # f = (1/2, 1/4, 1/4, 0): entropy (1/2 ln 2 + 1/2 ln 4)/ln 4 = 0.75; the worst has 2 x 1/4.
    load_E = np.array([4, 2, 2, 0])
    assert load.load_entropy(load_E) == pytest.approx(0.75)
    assert load.max_violation(load_E) == pytest.approx(1.0)
    assert load.dead_experts(load_E) == 1
    even = np.array([[3, 3], [6, 0]])
    np.testing.assert_allclose(load.load_entropy(even), [1, 0])
    np.testing.assert_allclose(load.max_violation(even), [0, 1])
    assert load.load_entropy(np.array([7])) == 1
