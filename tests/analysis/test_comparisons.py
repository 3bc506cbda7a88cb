"""Two traces of one text: what is settled, and which expert is which."""

import dataclasses

import numpy as np
import pytest

from moe.analysis import matching, saturation
from moe.analysis.matching import Matching
from moe.analysis.saturation import Saturation
from moe.registry import Mistake
from tests.fakes import traces


def readings(comparison, first, second, **text):
    trace = traces.trace(second, **text)
    found = comparison(trace, first, second, np.random.default_rng(0))
    return {each.name: each for each in found}


def test_saturation_and_change_by_hand():
    # Finally {0, 1} {2, 3}; before {1, 2} {2, 3}: 1 + 2 of 4 choices. First choices 1 and 2 before,
    # 0 and 2 finally: half of them change.
    first, second = traces.layer([[1, 2], [2, 3]]), traces.layer([[0, 1], [2, 3]])
    found = readings(Saturation(), first, second)
    assert found["saturation"].value == pytest.approx(3 / 4)
    assert found["saturation"].detail == {"even": 0.5}
    assert found["change_rate"].value == pytest.approx(1 / 2)


def test_choices_that_were_not_made_are_not_shared():
    # E = 4 marks them: only expert 0 of three choices stands in both.
    assert saturation.overlap(np.array([[0, 4], [4, 4]]), np.array([[0, 4], [1, 2]]), 4) == 1 / 3


def test_the_null_of_saturation_is_chance():
    # Drawn evenly, k / E = 2 / 8 of the choices are shared, and 7/8 of first choices change.
    draw = np.random.default_rng(1)
    layers = [
        traces.layer(np.argsort(draw.random((4000, 8)), axis=1)[:, :2], E=8) for _ in range(2)
    ]
    found = readings(Saturation(), *layers)
    assert found["saturation"].null_mean == pytest.approx(0.25, abs=0.01)
    assert found["change_rate"].null_mean == pytest.approx(0.875, abs=0.01)
    assert abs(found["saturation"].sigmas) < 3 and abs(found["change_rate"].sigmas) < 3


def test_last_change_over_checkpoints():
    # First experts of two tokens at three steps: 0 1, 1 1, 1 0. The first is final from step 1 on,
    # the second from step 2 on.
    steps = [traces.trace(traces.layer([[a], [b]])) for a, b in ((0, 1), (1, 1), (1, 0))]
    np.testing.assert_allclose(saturation.last_change(steps), [[0, 0.5, 1]])
    other = dataclasses.replace(steps[0], id_T=steps[0].id_T + 1)
    with pytest.raises(Mistake, match="made: must be a trace of the text of made"):
        saturation.last_change([other, steps[1]])


def test_matching_by_hand():
    # First 0 0 1 1, second 1 1 0 1. Together: (0, 1) twice, (1, 0) and (1, 1) once. Best: 0 is 1
    # and 1 is 0, 3 of 4; a matching at random 4 / 2 / 4; as they are called 1 of 4.
    first, second = traces.layer([[0], [0], [1], [1]], E=2), traces.layer([[1], [1], [0], [1]], E=2)
    found = readings(Matching(), first, second)
    assert found["matched"].value == pytest.approx(3 / 4)
    np.testing.assert_array_equal(found["matched"].detail["partner"], [1, 0])
    assert found["matched"].detail["random"] == pytest.approx(1 / 2)
    assert found["matched"].detail["unmatched"] == pytest.approx(1 / 4)
    # Every id stands once, so all of the agreement may be due to the ids.
    assert found["matched_given_id"].null_mean == pytest.approx(3 / 4)


def test_relabelled_experts_are_found_and_some_are_left_over():
    draw = np.random.default_rng(2)
    expert_TK = np.argsort(draw.random((500, 6)), axis=1)[:, :2]
    name_E = draw.permutation(6)
    first, second = traces.layer(expert_TK, E=6), traces.layer(name_E[expert_TK], E=6)
    found = readings(Matching(), first, second)
    assert found["matched"].value == 1 and found["matched"].sigmas > 10
    np.testing.assert_array_equal(found["matched"].detail["partner"], name_E)
    # Of six experts and three, three have no partner.
    count_EF = matching.together(expert_TK, expert_TK % 3, (6, 3))
    assert (matching.match(count_EF) < 0).sum() == 3


def test_the_best_matching_of_unlike_routers_agrees_more_than_one_at_random():
    draw = np.random.default_rng(3)
    layers = [traces.layer(draw.integers(8, size=(400, 1)), E=8) for _ in range(2)]
    found = readings(Matching(), *layers)["matched"]
    assert found.value > found.detail["random"] == pytest.approx(1 / 8)
    assert abs(found.sigmas) < 3
