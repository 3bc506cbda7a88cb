"""What each null keeps, and what it takes away."""

import numpy as np

from moe.analysis import chance
from tests.fakes import traces


def generator():
    return np.random.default_rng(0)


def test_within_a_group_places_are_exchanged_and_between_groups_none():
    group_T = np.arange(600) % 3
    order_T = chance.within(group_T, generator())
    np.testing.assert_array_equal(np.sort(order_T), np.arange(600))
    np.testing.assert_array_equal(group_T[order_T], group_T)
    assert (order_T != np.arange(600)).mean() > 0.9


def test_a_label_is_dealt_to_units():
    # Documents 0 to 7 of two tokens each, desks 0 0 0 0 1 1 1 1: four of each after any deal.
    document_T, desk_T = np.arange(16) // 2, np.arange(16) // 8
    dealt_T = chance.by_unit(desk_T, document_T, generator())
    np.testing.assert_array_equal(dealt_T[::2], dealt_T[1::2])
    assert dealt_T.sum() == 8 and (dealt_T != desk_T).any()
    # A unit with two labels is none: tokens are shuffled, and pairs come apart.
    mixed_T = chance.by_unit(np.arange(16) % 2, document_T, generator())
    assert mixed_T.sum() == 8 and (mixed_T[::2] == mixed_T[1::2]).any()


def test_windows_are_turned_whole():
    found = traces.random(windows=40, length=8)
    turned_WL = chance.turned(found, generator()).reshape(40, 8)
    np.testing.assert_array_equal((turned_WL[:, 1:] - turned_WL[:, :-1]) % 8, 1)
    assert len(np.unique(turned_WL[:, 0])) == 8


def test_trades_keep_sizes_and_loads_and_undo_pairs():
    # Half of the tokens have {0, 1}, half {2, 3}, one {4} and one nothing.
    expert_TK = np.repeat([[0, 1], [2, 3]], 100, axis=0)
    expert_TK = np.concatenate([expert_TK, [[4, 5], [5, 5]]])  # E = 5 is no choice
    before = chance.members(expert_TK, 5)
    after, draw = before, generator()
    for _ in range(10):
        after = chance.traded(after, draw)
    np.testing.assert_array_equal(after.sum(axis=1), before.sum(axis=1))
    np.testing.assert_array_equal(after.sum(axis=0), [100, 100, 100, 100, 1])
    # Evenly drawn sets of two of four: one of three partners each, 0 with 1 a third of the time.
    assert 20 < (after[:, 0] & after[:, 1]).sum() < 47  # 33 and about 3 deviations of 4.7


def test_pairs_stay_in_windows_and_documents():
    found = traces.trace(
        traces.layer(np.zeros((8, 1))), length=4, document_T=[0, 0, 1, 1, 1, 1, 1, 1]
    )
    # Token 2 begins a document, token 4 a window.
    np.testing.assert_array_equal(chance.pairs(found), [1, 3, 5, 6, 7])


def test_some_tokens_are_spread():
    np.testing.assert_array_equal(chance.some(5, 10), np.arange(5))
    np.testing.assert_array_equal(chance.some(101, 3), [0, 50, 100])
