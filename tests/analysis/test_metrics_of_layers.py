"""Geometry, clusters and drops by hand."""

import math

import numpy as np
import pytest

from moe.analysis import clusters, drops, geometry
from moe.analysis.clusters import Clusters
from moe.analysis.drops import Drops
from moe.analysis.geometry import Geometry
from tests.fakes import traces


def readings(metric, trace):
    found = metric(trace, trace.layers[0], np.random.default_rng(0))
    return {each.name: each for each in found}


def test_regions_by_hand():
    # Directions (1, 0) and (0, 2). x = (3, 1): logits 3, 2; x = (3, 2): logits 3, 4.
    # Margins 1 and 1. To the border: 1 / |(1, -2)| / |x| = 1 / sqrt(5 * 10) = 0.141421 and
    # 1 / sqrt(5 * 13) = 0.124035; their middle is 0.132728. Cosines to the own direction:
    # 3 / sqrt(10) = 0.948683 and 2 / sqrt(13) = 0.554700; mean 0.751692.
    # The nearest direction of both is the first, which the second does not have.
    x_SD, w_DE = np.array([[3.0, 1.0], [3.0, 2.0]]), np.array([[1.0, 0.0], [0.0, 2.0]])
    found = geometry.regions(x_SD, w_DE, 1, np.zeros((2, 2)))
    expected = {
        "margin": 1,
        "near_border": 0,
        "border_distance": 0.132728,
        "flips": 0,
        "cone": 0.751692,
        "direction_cosine": 0,
        "nearest_direction": 0.5,
    }
    assert found == pytest.approx(expected, abs=1e-6)
    # Noise of (0, 1) on the first: logits 3, 4, and its expert is another one.
    assert geometry.regions(x_SD, w_DE, 1, np.array([[0.0, 1.0], [0.0, 0.0]]))["flips"] == 0.5


def test_near_the_border_is_below_a_tenth_and_what_is_not_known_is_left_out():
    found = geometry.margins(np.array([0.05, 0.1, 0.3, np.nan]))
    assert found == pytest.approx({"margin": 0.1, "near_border": 1 / 3})


def test_cohesion_by_hand():
    # 0, 2 and 10, 12 around 6: total 36 + 16 + 16 + 36 = 104, within 1 + 1 + 1 + 1 = 4.
    x_SD, group_S = np.array([[0.0], [2.0], [10.0], [12.0]]), np.array([0, 0, 1, 1])
    assert geometry.cohesion(x_SD, group_S) == pytest.approx(1 - 4 / 104)


def linear(**changes):
    """A trace of a router whose choices are those of its matrix."""
    generator = np.random.default_rng(1)
    x_SD = generator.standard_normal((64, 3))
    w_DE = generator.standard_normal((3, 4)) * [1, 2, 3, 4]
    ranked_TE = np.sort(x_SD @ w_DE, axis=1)
    values = {
        "sample_S": np.arange(64),
        "input_SD": x_SD,
        "matrix_DE": w_DE,
        "margin_T": ranked_TE[:, -1] - ranked_TE[:, -2],
    }
    expert_TK = (x_SD @ w_DE).argmax(axis=1)[:, None]
    return traces.trace(traces.layer(expert_TK, **{**values, **changes}))


def test_a_linear_router_is_read_beside_random_directions():
    found = readings(Geometry(), linear())
    assert found["margin"].detail == {"linear": 1}
    assert all(each.null_mean is not None for each in found.values())
    lengths = np.linalg.norm(linear().layers[0].matrix_DE, axis=0)
    assert found["norm_variation"].value == pytest.approx(lengths.std() / lengths.mean())


def test_margins_in_other_units_have_no_null_and_tables_no_directions():
    sigmoid = readings(Geometry(), linear(margin_T=np.full(64, 0.01)))
    assert sigmoid["margin"].value == 0.01 and sigmoid["margin"].null_mean is None
    assert sigmoid["near_border"].null_mean is None and sigmoid["flips"].null_mean is not None
    table = readings(Geometry(), linear(matrix_DE=None, margin_T=np.full(64, np.nan)))
    assert [name for name in table if table[name].value is not None] == ["cohesion"]


def test_clusters_are_found_whatever_they_are_called():
    # Two far bunches: k-means has them, an expert each agrees with them, a class across does not.
    x_SD = np.repeat([[1.0, 0.0], [0.0, 1.0]], 32, axis=0)
    x_SD += 0.01 * np.random.default_rng(0).standard_normal(x_SD.shape)
    expert_TK = np.repeat([1, 0], 32)[:, None]
    layer = traces.layer(expert_TK, E=2, sample_S=np.arange(64), input_SD=x_SD)
    found = readings(Clusters(), traces.trace(layer, class_T=np.arange(64) % 2))
    assert found["ami_cluster"].value == pytest.approx(1)
    assert found["ami_cluster"].detail["restart"] == pytest.approx(1)
    # 16 tokens in each of 2 x 2 cells: I = 0, and what chance gives, about 1 / 126 nats, is more.
    assert -0.02 < found["ami_class"].value < 0
    gap = found["ami_cluster"].value - found["ami_class"].value
    assert found["cluster_minus_class"].value == pytest.approx(gap)
    assert found["cluster_minus_class_equal"].value == pytest.approx(gap)  # 2 clusters as well


def test_adjusted_information_is_that_of_scikit_learn():
    from sklearn.metrics import adjusted_mutual_info_score

    draw = np.random.default_rng(0)
    one_S, noise_S = draw.integers(5, size=300) * 2, draw.integers(7, size=300)
    for two_S in (one_S, noise_S, np.where(noise_S > 3, one_S, noise_S), np.zeros(300, int)):
        expected = adjusted_mutual_info_score(one_S, two_S)
        assert clusters.ami(one_S, two_S) == pytest.approx(expected, abs=1e-9)
    assert clusters.ami(np.zeros(3, int), np.zeros(3, int)) == 1


def test_whitened_inputs_spread_alike_in_every_direction_they_have():
    x_SD = np.random.default_rng(0).standard_normal((500, 3)) * [100, 1, 0]
    white_SD = clusters.whitened(x_SD)
    assert white_SD.shape == (500, 2)
    np.testing.assert_allclose(np.linalg.norm(white_SD, axis=1), 1)
    assert np.abs(white_SD.mean(axis=0)).max() < 0.1 and abs(np.var(white_SD) - 0.5) < 0.01


def test_loss_of_dropped_tokens_is_compared_at_equal_frequency():
    # Stratum 0: dropped 3, kept 1 2: 1.5. Stratum 1: dropped 5 7, kept 4: 2. Stratum 2 has no
    # dropped one. (1 * 1.5 + 2 * 2) / 3 = 1.8333; unmatched it would be 5 - 19/4 = 0.25.
    loss_T = np.array([3.0, 1, 2, 5, 7, 4, 12])
    dropped_T = np.array([1, 0, 0, 1, 1, 0, 0], bool)
    found = drops.matched_gap(loss_T, dropped_T, np.array([0, 0, 0, 1, 1, 1, 2]))
    assert found == pytest.approx(5.5 / 3)
    assert math.isnan(drops.matched_gap(loss_T, np.ones(7, bool), np.zeros(7, int)))


def test_drops_by_hand():
    # 32 windows of 8 places and two choices: the second choice of the last place is dropped. Of
    # 512 assignments 32. Late: (0 + 1) / 2 less 0. Last rank: 1/8 less 0.
    expert_TK = np.tile([0, 1], (256, 1))
    kept_TK = np.ones((256, 2), bool)
    kept_TK[7::8, 1] = False
    found = readings(Drops(), traces.trace(traces.layer(expert_TK, kept_TK=kept_TK), length=8))
    assert found["drop_rate"].value == pytest.approx(32 / 512)
    assert found["drop_all"].value == 0
    assert found["dropped_late"].value == pytest.approx(0.5)
    assert found["dropped_late"].sigmas > 5
    np.testing.assert_allclose(found["dropped_late"].detail["rate"], [0] * 7 + [0.5])
    assert found["dropped_last_rank"].value == pytest.approx(1 / 8)
    np.testing.assert_allclose(found["dropped_last_rank"].detail["rate"], [0, 1 / 8])


def test_where_nothing_was_dropped_there_is_nothing_to_compare():
    found = readings(Drops(), traces.random())
    assert found["drop_rate"].value == 0 and found["drop_rate"].null_mean is None
    assert [each.value for each in found.values()][2:] == [None] * 4
