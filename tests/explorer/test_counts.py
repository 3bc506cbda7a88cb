"""What the page's numbers are: packed arrays, passages, partners, shares, the sentence."""

import base64

import numpy as np
import pytest

from experiments.explorer import counted, packed
from experiments.explorer.given import given
from experiments.explorer.pairs import pair, slots
from experiments.explorer.passages import LONGEST, Passage, passages, spread
from tests.fakes import spoken, traces


def test_numbers_are_packed_in_the_smallest_type():
    # 1 and 255 are the bytes 01 ff, in base64 "Af8="; 256 is 00 01 with the low byte first.
    assert packed.whole(np.array([1, 255])) == {"type": "u8", "data": "Af8="}
    assert packed.whole(np.array([256]))["type"] == "u16"
    assert base64.b64decode(packed.whole(np.array([256]))["data"]) == b"\x00\x01"
    assert packed.whole(np.array([2**16]))["type"] == "u32"
    assert packed.whole(np.zeros(0, int)) == {"type": "u8", "data": ""}
    # The first of nine flags is the lowest bit: 0b00000101, then 1.
    bits = packed.flags(np.array([1, 0, 1, 0, 0, 0, 0, 0, 1], bool))
    assert base64.b64decode(bits["data"]) == bytes([5, 1])


def test_real_numbers_come_back_within_half_a_step_and_nan_stays():
    made = packed.real(np.array([-1.0, 0.3, 3.0, np.nan, np.inf]), levels=254)
    code = np.frombuffer(base64.b64decode(made["data"]), np.uint8)
    # 4 / 254 a step: 1.3 / 4 * 254 = 82.55 is code 83.
    assert code.tolist() == [0, 83, 254, 255, 255]
    assert (made["zero"], made["step"]) == (-1, 4 / 254)
    assert packed.real(np.array([2.0, 2.0]))["zero"] == 2
    assert packed.real(np.array([np.nan]))["type"] == "u16"


def test_windows_are_passages_and_long_ones_are_cut():
    one = traces.trace(traces.layer(np.zeros((2 * 300, 1))), length=300)
    assert LONGEST == 256
    assert passages(one) == [(0, 256, 0), (256, 300, 0), (300, 556, 1), (556, 600, 1)]


def test_passages_are_spread_evenly_over_desks():
    found = [Passage(i, i + 1, desk) for i, desk in enumerate([0] * 6 + [1] * 1 + [2] * 6)]
    # Five of three desks with one of desk 1: two of desk 0 and two of desk 2, at 1/4 and 3/4.
    assert [p.start for p in spread(found, 5, found[1])] == [1, 4, 6, 8, 11]
    # Another first one takes the place of the nearest of its desk.
    assert [p.start for p in spread(found, 5, found[5])] == [1, 5, 6, 8, 11]
    assert spread(found, 99, found[0]) == found
    assert spread(found, 1, found[12]) == [found[12]]


def test_experts_of_two_layers_are_matched_by_the_tokens_they_share():
    one = traces.layer([[0], [0], [0], [1], [1], [2]], E=3)
    other = traces.layer([[2], [2], [0], [0], [0], [3]], E=3)  # the last made no choice
    made = pair(one, other)
    # 0 and 2 share two tokens, 1 and 0 two; 2 and 1 are left over and share none.
    assert made.partner_E.tolist() == [2, 0, 1]
    assert made.same_T.tolist() == [True, True, False, True, True, False]
    assert made.agreement == pytest.approx(4 / 6)
    assert slots(one, np.array([5, 6, 7]), other).tolist() == [6, 7, 5]


def test_a_layer_with_more_experts_leaves_some_without_a_partner():
    wide = traces.layer([[0], [1], [2], [2]], E=3)
    narrow = traces.layer([[1], [0], [0], [0]], E=2)
    assert pair(wide, narrow).partner_E.tolist() == [1, -1, 0]
    assert pair(narrow, wide).partner_E.tolist() == [2, 0]
    # Expert 1 of the wide one has the first colour that is free.
    assert slots(narrow, np.array([0, 1]), wide).tolist() == [1, 2, 0]


def test_layers_that_have_nothing_in_common_agree_as_much_as_their_shuffles():
    rng = np.random.default_rng(3)
    one, other = (traces.layer(rng.integers(4, size=(8000, 1))) for _ in range(2))
    made = pair(one, other)
    # A quarter, and what the best of 24 matchings finds in noise of 0.5 % of the tokens.
    assert made.agreement == pytest.approx(0.25, abs=0.02)
    assert made.null == pytest.approx(made.agreement, abs=0.01)
    alone = traces.layer(np.zeros((9, 1)), E=1)
    assert pair(alone, alone)[2] == 1  # one expert: shuffling changes nothing


def test_what_an_expert_was_given_is_counted_over_choices_and_desks():
    id_T = [0, 0, 0, 0, 1, 1, 1, 2]
    expert_TK = [[0, 1], [0, 1], [0, 2], [1, 2], [1, 2], [1, 2], [1, 3], [0, 3]]
    made = traces.trace(traces.layer(expert_TK, E=3), id_T=id_T)  # 3 is a choice not made
    had = given(made, made.layers[0], 2)
    # 14 choices: expert 0 has 4, 1 has 6, 2 has 4; the second desk made 6 of them.
    assert had.share_E == pytest.approx(np.array([4, 6, 4]) / 14)
    assert had.share_YE[1] == pytest.approx(np.array([1, 3, 2]) / 6)
    # Expert 0 has half of the tokens: of id 0 three of four against 2, (3 - 2) / 1 = 1; of id 2
    # one of one against 0.5, 0.5 / 0.5 = 1: the lower id is first. Of id 1 none of three.
    assert had.top_EM[0].tolist() == [0, 2] and had.had_EM[0].tolist() == [3, 1]
    # Expert 1 has three quarters: id 1 three of three, 0.75 / sqrt(0.5625) = 1; id 0 3 of 4 is
    # just its share, id 2 below.
    assert had.top_EM[1].tolist() == [1, -1] and had.had_EM[1].tolist() == [3, 0]


def test_the_sentence_is_counted():
    read = counted.read([spoken.learned(), spoken.learned(1), spoken.hashed(), spoken.dense()])
    assert read.names == ("learned seed 0", "learned seed 1", "hashed seed 0")
    assert read.without == ("words/dense seed 0",) and read.depths == spoken.LAYERS
    assert read.pairs[0, 1][1].agreement == read.pairs[0, 1][3].agreement == 1
    # Shuffled, each pair of the 4 by 4 shares 12 of 192 tokens, give or take 3: a quarter agrees,
    # and what the best of 24 matchings adds.
    assert 0.25 < read.pairs[0, 1][1].null < 0.4
    # Of the 8 ids of a quarter each of the 4 learned experts has 2: 1 of 4 tokens is matched.
    assert read.pairs[0, 2][1].agreement == 0.25
    start = "In layer 1, learned seed 0 and hashed seed 0 send 75\u00a0% of the tokens to different"
    assert read.finding.sentence.startswith(start)
    assert read.finding.runs == (0, 2) and read.finding.mode == "disagree"


def test_one_run_is_told_by_its_expert():
    layer = traces.layer([[0]] * 4 + [[1]] * 3 + [[0]], E=2)
    made = traces.trace(layer, id_T=[0, 1, 0, 1, 3, 3, 3, 0])
    # Expert 0 has 5 of 8 choices and all 4 of desk x, 3/8 above; so is expert 1 with 3/8 and 3/4 of
    # desk y, and the lower one is told. Both ids of x are its own: a 3 times, b twice.
    finding = counted.read([made]).finding
    assert finding.sentence == (
        "In layer 0 of made, expert 0 serves 62\u00a0% of all choices and 100\u00a0% of those on "
        "x, above all “a” and “b”."
    )
    assert (finding.expert, finding.passage[:2], finding.token) == (0, (0, 4), 0)
