"""Evaluation: batches like those of training, every window counted once, looks that compare."""

import dataclasses

import numpy as np
import pytest

from moe.data.loader import Batch
from moe.dispatch.einsum import Einsum
from moe.experiment import Train
from moe.model.depth import map_routers
from moe.params import with_state
from moe.routers.hash import Hash
from moe.training import step
from moe.training.evaluate import Evaluation, chosen_windows, evaluate, in_batches
from tests.fakes.data import SyntheticDataset
from tests.training.test_train import DATASET, experiment

L = 16


class Apart(SyntheticDataset):
    """Four desks that share no word: desk y has the ids 8 y ... 8 y + 7."""

    desks = classes = ("a", "b", "c", "d")

    def _rows(self, generator, desk_B):
        id_BL = generator.integers(8, size=(len(desk_B), L + 1)) + 8 * desk_B[:, None]
        label_BL = np.repeat(desk_B[:, None], L, axis=1).astype(np.int32)
        id_BL = id_BL.astype(np.int32)
        return Batch(id_BL[:, :-1], id_BL[:, 1:], label_BL, label_BL, label_BL)


def desk_by_desk(batch, windows, **router):
    """An experiment whose expert e serves desk e alone, its parameters, and the data set."""
    run = experiment(Hash(**router), batch=batch)
    moe = dataclasses.replace(run.model.moe, dispatch=Einsum(1.0, group_size=0))
    run = dataclasses.replace(run, model=run.model.clone(moe=moe))
    params = step.init(run, DATASET.corpus).params
    table_VK = (np.arange(32, dtype=np.int32) // 8)[:, None]
    params = map_routers(params, lambda p, n: with_state(p, expert_VK=table_VK))
    return run, params, Apart(windows=windows)


def test_desks_compete_as_they_do_in_training():
    # 8 windows are 128 tokens and give each of 4 experts 128 / 4 = 32 slots: a batch of all desks
    # fills them and drops nothing. A batch of one desk would drop 3 of 4.
    run, params, dataset = desk_by_desk(batch=8, windows=2)
    found = evaluate(run, params, dataset)
    np.testing.assert_array_equal(found.dropped_N, [0, 0])
    np.testing.assert_array_equal(found.load_YNE, 2 * L * np.eye(4)[:, None].repeat(2, axis=1))
    assert found.router(run).metrics["drop_rate"] == [0, 0]


def test_what_fills_a_batch_up_counts_in_no_drop_and_no_load():
    # 12 windows in batches of 8; each expert has 8 * 16 / 4 = 32 slots, room for two windows of
    # its desk, so of three in a batch the last is dropped, and of four two.
    run, params, dataset = desk_by_desk(batch=8, windows=3)
    dropped = 0
    for rows in in_batches(chosen_windows(np.full(4, 3), None), 8):
        place = [0] * 4
        for window, counted in zip(rows.window_B, rows.counted_B, strict=True):
            place[window // 3] += 1
            dropped += int(counted and place[window // 3] > 2) * L
    found = evaluate(run, params, dataset)
    assert dropped > 0
    np.testing.assert_array_equal(found.dropped_N, [dropped] * 2)
    np.testing.assert_array_equal(found.unserved_N, [dropped] * 2)  # k = 1
    np.testing.assert_array_equal(found.load_YNE.sum(axis=(0, 2)), [12 * L] * 2)
    metrics = found.router(run).metrics
    assert metrics["drop_rate"] == metrics["unserved_rate"] == [dropped / (12 * L)] * 2


@pytest.mark.parametrize(("windows", "size"), [(320, 8), (15, 4), (7, 7), (13, 12), (3, 8)])
def test_each_window_counts_once_and_stands_once_in_a_batch(windows, size):
    counted = []
    for rows in in_batches(np.random.default_rng(3).permutation(windows), size):
        assert rows.window_B.shape == rows.counted_B.shape == (size,)
        counted += rows.window_B[rows.counted_B].tolist()
        if windows >= size:
            assert len(set(rows.window_B)) == size
    assert sorted(counted) == list(range(windows))


def test_fewer_windows_than_a_batch_are_one_batch_of_their_own():
    # 4 windows where training has 8: 4 * 16 / 4 = 16 slots, those of one window; nothing repeats.
    run, params, dataset = desk_by_desk(batch=8, windows=1)
    np.testing.assert_array_equal(evaluate(run, params, dataset).dropped_N, [0, 0])


def test_a_look_has_each_desk_s_share():
    # 6 of 13 windows: 4.15, 1.38 and 0.46 of the desks', but one at least; the others are the last.
    np.testing.assert_array_equal(
        np.sort(chosen_windows(np.array([9, 3, 1]), 6)), [0, 3, 5, 8, 9, 12]
    )
    # 4 of 7 windows: 2.86 and 1.14; the first gets the one that is left over.
    np.testing.assert_array_equal(np.sort(chosen_windows(np.array([5, 2]), 4)), [0, 2, 4, 5])
    # Three of four tokens are the first desk's, whatever was read of it: 3/4 of 10/10 and 1/4 of
    # 6/2 nats; 3/4 of 20/10 and 1/4 of 8/2 bytes a token.
    parts = [np.array(a) for a in ([0.75, 0.25], [10.0, 6], [10, 2], [20, 8])]
    found = Evaluation(("a", "b"), *parts, None, None, None)
    assert found.val_loss == pytest.approx(1.5)
    assert found.val_bits_per_byte == pytest.approx(1.5 / 2.5 / np.log(2))


def test_a_part_of_the_windows_is_spread_over_all_of_them():
    class Part(SyntheticDataset):
        def held_out(self, desk):  # 4 of 0 ... 4, evenly: 0, 4/3, 8/3 and 4
            return Batch(*(rows[[0, 1, 3, 4]] for rows in super().held_out(desk)))

    run = experiment()
    params = step.init(run, DATASET.corpus).params
    part, same_windows = evaluate(run, params, DATASET, batches=3), evaluate(run, params, Part())
    for name in ("nats_Y", "tokens_Y", "bytes_Y", "load_YNE", "dropped_N"):
        np.testing.assert_array_equal(getattr(part, name), getattr(same_windows, name))
    np.testing.assert_array_equal(part.tokens_Y, [64, 64, 64])


def test_evaluation_counts_each_window_once():
    # Five windows in batches of four: the last batch holds one window and three repeats.
    run = experiment()
    params = step.init(run, DATASET.corpus).params
    found = evaluate(run, params, DATASET)
    whole = evaluate(dataclasses.replace(run, train=Train(batch=5)), params, DATASET)
    np.testing.assert_allclose(found.nats_Y, whole.nats_Y, rtol=1e-5)
    np.testing.assert_array_equal(found.load_YNE, whole.load_YNE)
    np.testing.assert_array_equal(found.load_YNE.sum(axis=-1), 5 * 16)  # 5 windows of 16 tokens
    np.testing.assert_array_equal(found.tokens_Y, [80, 80, 80])
    bits = found.nats_Y.sum() / (240 * 2) / np.log(2)  # each token spells 2 bytes
    assert found.val_bits_per_byte == pytest.approx(bits)
    record = found.router(run)
    assert record.layers == [0, 1] and np.sum(record.desk_load["ones"]) == pytest.approx(2)
