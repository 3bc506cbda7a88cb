"""Metrics of choices by hand; the two errors of released code, made again and corrected."""

import itertools

import numpy as np
import pytest

from moe.analysis import coactivation, domains, information, repeat, vocabulary
from moe.analysis.coactivation import CoActivation
from moe.analysis.domains import Domains
from moe.analysis.information import Information
from moe.analysis.repeat import Repeat
from moe.analysis.vocabulary import Vocabulary
from tests.fakes import traces


def readings(metric, trace):
    found = metric(trace, trace.layers[0], np.random.default_rng(0))
    return {each.name: each for each in found}


def test_information_by_hand():
    # Desk 0 has experts 0 0, desk 1 has 0 1. H(e) of (3/4, 1/4) = 0.562335 nats; H(e | desk) =
    # (0 + ln 2) / 2 = 0.346574; I = 0.215762; U = I / H(e) = 0.383689. Over ln 2: 0.811278, 0.5.
    trace = traces.trace(traces.layer([[0], [0], [0], [1]], E=2), desk_T=[0, 0, 1, 1])
    found = readings(Information(), trace)
    assert found["entropy"].value == pytest.approx(0.811278, abs=1e-6)
    assert found["entropy_given_desk"].value == pytest.approx(0.5)
    assert found["u_desk"].value == pytest.approx(0.383689, abs=1e-6)
    # One document of one desk after the other: every id stands once, and tells all.
    assert found["u_token"].value == pytest.approx(1)


def test_a_label_that_fixes_the_set_of_experts_tells_all_there_is():
    # Sets {0, 1} and {2, 3} by desk: H(e) = ln 4, and ln 2 is left inside a set, so the most is
    # ln 4 - ln 2 = ln 2, which the desk tells. Without the ceiling it would be 1/2.
    pairs = [[0, 1], [1, 0], [2, 3], [3, 2]]
    found = readings(Information(), traces.trace(traces.layer(pairs), desk_T=[0, 0, 1, 1]))
    assert found["u_desk"].value == pytest.approx(1)
    # A token with one choice and one with two: 1 of 3 assignments leave 0, 2 of 3 leave ln 2.
    # Loads 2, 1 of E = 2: H = 0.636514; ceiling = 0.636514 - 2/3 * 0.693147 = 0.174416.
    assert information.ceiling(np.array([[0, 2], [0, 1]]), 2) == pytest.approx(0.174416, abs=1e-6)


def test_labels_that_are_not_known_are_left_out():
    layer = traces.layer([[0], [1], [0], [1]], E=2)
    found = readings(Information(), traces.trace(layer, desk_T=[-1] * 4, class_T=[0, 1, -1, -1]))
    assert found["u_desk"].value is None and found["entropy_given_desk"].value is None
    assert found["u_class"].value == pytest.approx(1)


def test_vocabulary_counts_what_stands_once_as_specialised():
    # Ids 0 and 1 stand once, id 2 ten times, five for each of two experts.
    id_T, expert_T = np.array([0, 1] + [2] * 10), np.array([0, 0] + [0, 1] * 5)
    found = vocabulary.specialisation(id_T, expert_T, (3, 2))
    # As released, over types: (1 + 1 + 1/2) / 3. Types of ten and more: 1/2. Tokens: 7/12.
    np.testing.assert_allclose(found, [2.5 / 3, 0.5, 7 / 12])


def test_the_released_vocabulary_average_finds_experts_in_noise():
    # 300 ids once and 10 ids 30 times each; experts drawn. A favourite of 30 draws of 4 has about
    # a third of them, so the released average is close to 1, of nothing but ids that stand once.
    generator = np.random.default_rng(0)
    id_T = np.concatenate([np.arange(300), 300 + np.arange(300) % 10])
    layer = traces.layer(generator.integers(4, size=(600, 1)))
    found = readings(Vocabulary(), traces.trace(layer, id_T=id_T, target_T=np.roll(id_T, -1)))
    assert found["vocabulary_types"].value > 0.95
    assert found["vocabulary_frequent"].value < 0.5
    for name in ("types", "frequent", "tokens"):
        assert abs(found[f"vocabulary_{name}"].sigmas) < 3
        assert abs(found[f"next_{name}"].sigmas) < 3


def test_domains_by_hand():
    # Desk x: {0, 1} {0, 2}; desk y: {3, 0} {3, 1}. Shares of their two tokens each.
    layer = traces.layer([[0, 1], [0, 2], [3, 0], [3, 1]])
    trace = traces.trace(layer, desk_T=[0, 0, 1, 1])
    share = domains.shares(trace.desk_T, layer.expert_TK, (2, 4))
    np.testing.assert_allclose(share, [[1, 0.5, 0.5, 0], [0.5, 0.5, 0, 1]])
    found = readings(Domains(), trace)
    assert found["domain_top"].value == 1 and found["domain_top_expert"].value == 1
    np.testing.assert_allclose(found["domain_top"].detail["share"]["y"], share[1])


def test_a_desk_without_tokens_is_left_out():
    layer = traces.layer([[0], [0], [1], [2]])
    trace = traces.trace(layer, desk_T=[0, 0, 2, 2])
    assert np.isnan(domains.shares(trace.desk_T, layer.expert_TK, (3, 4))[1]).all()
    assert readings(Domains(), trace)["domain_top"].value == 0.75  # (1 + 1/2) / 2


def test_coactivation_of_all_pairs_and_as_released():
    # Ranked 0 1 2 and 0 2 1. All pairs: each expert with each other in both tokens, so all 1, and
    # a row sums to k - 1 = 2. Neighbours in rank: 0-1, 1-2; 0-2, 2-1: of two tokens each,
    # 0 with 1 and 0 with 2 once, 1 with 2 twice.
    expert_TK = np.array([[0, 1, 2], [0, 2, 1]])
    full = coactivation.coactivation(expert_TK, 4)
    np.testing.assert_allclose(full[:3, :3], 1 - np.eye(3))
    assert not full[3].any() and not full[:, 3].any()
    released = coactivation.coactivation(expert_TK, 4, adjacent_only=True)
    np.testing.assert_allclose(released[:3, :3], [[0, 0.5, 0.5], [0.5, 0, 1], [0.5, 1, 0]])


def test_the_released_coactivation_sees_7_of_28_pairs():
    expert_TK = np.random.default_rng(0).permuted(np.tile(np.arange(8), (50, 1)), axis=1)
    # One token has 8 experts: every pair each time, 28 of them in both directions.
    assert coactivation.coactivation(expert_TK, 8).sum() == pytest.approx(2 * 28)
    released = coactivation.coactivation(expert_TK, 8, adjacent_only=True)
    assert released.sum() == pytest.approx(2 * 7)
    counted = np.zeros((8, 8))  # as `more_itertools.pairwise` does
    for a, b in itertools.chain.from_iterable(map(itertools.pairwise, expert_TK.tolist())):
        counted[a, b] += 1
        counted[b, a] += 1
    np.testing.assert_allclose(released, counted / 50)


def test_choices_that_were_not_made_have_no_partner():
    # E = 4 marks them: the second token has one expert.
    share = coactivation.coactivation(np.array([[0, 1], [0, 4]]), 4)
    np.testing.assert_allclose(share[0], [0, 0.5, 0, 0])
    np.testing.assert_allclose(share[1], [1, 0, 0, 0])
    assert readings(CoActivation(), traces.trace(traces.layer([[0]] * 4)))["partner"].value is None


def test_repeat_by_hand():
    # Two windows of a document each: 0 0 1 1 and 1 0 0 0. Same as before: yes no yes, no yes yes.
    # Loads 5/8 and 3/8: squares sum to 34/64.
    layer = traces.layer([[0], [0], [1], [1], [1], [0], [0], [0]], E=2)
    found = readings(Repeat(), traces.trace(layer))
    assert found["repeat"].value == pytest.approx(4 / 6)
    assert found["repeat"].detail == {"sum_of_squares": 34 / 64, "even": 0.5}
    # Every id stands once, so nothing can be exchanged: all of it may be due to the ids.
    assert found["repeat_given_id"].null_mean == pytest.approx(4 / 6)
    assert found["repeat_given_id"].sigmas is None
    assert found["repeat_any"].value is None  # k = 1 has no second choice


def test_repeat_of_any_of_two():
    # {0, 1} {1, 2} share 1; {1, 2} {0, 3} nothing; {0, 3} {3, 0} both; the mark 4 is no expert.
    pairs = np.array([[0, 1], [1, 2], [0, 3], [3, 0], [4, 4], [4, 4]])
    assert repeat.any_rate(pairs, np.arange(1, 6), 4) == pytest.approx(2 / 5)


@pytest.mark.parametrize(("E", "k", "rate"), [(8, 2, 0.464), (64, 8, 0.679), (128, 8, 0.412)])
def test_even_repeat_of_published_sizes(E, k, rate):
    # 8 and 2: 1 - (6 * 5) / (8 * 7) = 26/56.
    assert repeat.even_any(E, k) == pytest.approx(rate, abs=5e-4)


def test_the_nulls_of_repeat_are_the_squares_and_the_ids():
    # Two ids take turns in runs of 4, their expert is the id: all repeats but at the turns are due
    # to the id, which a shuffle among its occurrences keeps.
    id_T = np.arange(4096) // 4 % 2
    trace = traces.trace(traces.layer(id_T[:, None], E=2), length=64, id_T=id_T)
    found = readings(Repeat(), trace)
    assert found["repeat"].value == pytest.approx(48 / 63)  # 15 turns in the 63 pairs of a window
    assert found["repeat"].null_mean == pytest.approx(0.5, abs=0.01)
    assert found["repeat_given_id"].null_mean == pytest.approx(48 / 63)
