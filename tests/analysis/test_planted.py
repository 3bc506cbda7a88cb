"""Controls: each metric finds what was planted, and nothing where it is not."""

import dataclasses

import numpy as np
import pytest

from moe import registry
from moe.analysis import chance, clusters
from moe.analysis.planted import Planted

SMALL = {"windows": 64, "length": 32}
LABELS = ("u_desk", "u_class", "u_position", "ami_class", "ami_desk", "domain_top")
# What a router shows that is linear in its inputs, whatever its directions: these read the inputs,
# or the ids that they come from.
OF_INPUTS = ("u_token", "ami_cluster", "cluster_minus_class", "vocabulary_tokens", "repeat")
FOUND = {
    "cluster": {
        *OF_INPUTS,
        *("entropy_given_token", "ami_cluster_whitened", "cluster_minus_class_equal"),
        *("vocabulary_types", "vocabulary_frequent", "next_types", "next_frequent", "next_tokens"),
        *("partner", "repeat_given_id", "repeat_given_id_in_document", "repeat_any"),
        *("dropped_late", "dropped_last_rank", "dropped_rare", "loss_of_dropped"),
        *("margin", "near_border", "border_distance", "flips", "cone", "direction_cosine"),
        "cohesion",
    },
    "desk": {"u_desk", "entropy_given_desk", "ami_desk", "domain_top", "domain_top_expert"},
    "class": {"u_class", "entropy_given_class", "ami_class"},
    "token": {"u_token", "entropy_given_token", "vocabulary_tokens"},
    "position": {"u_position", "entropy_given_position"},
}


def measured(trace, *metrics):
    """Every reading of the metrics by name, in one layer."""
    found = []
    for name in metrics or registry.names("metric"):
        measure = registry.lookup("metric", name)
        found += measure(trace, trace.layers[0], np.random.default_rng(0))
    return {each.name: each for each in found}


@pytest.fixture(scope="module")
def readings():
    """What a router follows -> all readings of its trace; drops are planted with clusters."""
    drops = {"cluster": 0.8}
    follows = [*FOUND, "untrained", "nothing"]
    return {
        each: measured(Planted(each, drops=drops.get(each, 0.0), **SMALL).trace())
        for each in follows
    }


@pytest.mark.parametrize("follows", FOUND)
def test_each_metric_finds_the_plant(readings, follows):
    weak = {n: readings[follows][n].sigmas for n in FOUND[follows]}
    assert not {name: sigmas for name, sigmas in weak.items() if abs(sigmas) < 3}


def test_every_reading_with_a_null_finds_a_plant(readings):
    with_null = {n for n, each in readings["cluster"].items() if each.null_sd is not None}
    # Evenness is of the load alone, and planted directions are of one length.
    rest = {"entropy", "norm_variation", "nearest_direction"}
    assert with_null - set().union(*FOUND.values()) == rest


def test_experts_that_follow_a_label_give_it_away(readings):
    # 0.9 of first choices follow the position, so it is the first with 0.9 + 0.1 / 8 = 0.9125. The
    # second is drawn from the others: an assignment is that expert with 0.9125 / 2 + 0.0875 / 14 =
    # 0.4625, each other one with 0.0768, and H = 1.736. (ln 8 - 1.736) / (ln 8 - ln 2) = 0.248.
    assert 0.22 < readings["position"]["u_position"].value < 0.28
    assert abs(readings["cluster"]["u_position"].sigmas) < 3
    assert readings["cluster"]["ami_cluster"].value == pytest.approx(1, abs=0.1)
    assert readings["cluster"]["cohesion"].value == pytest.approx(
        readings["cluster"]["cohesion"].detail["kmeans"], abs=0.05
    )
    assert readings["cluster"]["loss_of_dropped"].value == pytest.approx(0.8, abs=0.05)
    assert readings["desk"]["cluster_minus_class"].value == pytest.approx(0, abs=0.02)


def test_an_untrained_router_is_within_three_sigmas(readings):
    geometry = ("margin", "near_border", "border_distance", "flips", "cone", "direction_cosine")
    drops = ("dropped_late", "dropped_last_rank", "dropped_rare", "loss_of_dropped")
    names = (*LABELS, "domain_top_expert", *geometry, "norm_variation", *drops)
    found = {name: readings["untrained"][name] for name in names}
    # An expert that is the first in every desk, however they are dealt, leaves no spread.
    same = {name for name, each in found.items() if each.null_sd == 0}
    assert same <= {"domain_top"} and all(abs(found[name].excess) < 1e-9 for name in same)
    assert not {n: each for n, each in found.items() if n not in same and abs(each.sigmas) > 3}


def test_an_untrained_router_reads_its_inputs(readings):
    # So its own trace is the reference of these, not a shuffle.
    assert all(readings["untrained"][name].sigmas > 10 for name in OF_INPUTS)
    for name in OF_INPUTS:
        assert readings["untrained"][name].value < readings["cluster"][name].value


def test_a_router_that_draws_is_within_three_sigmas_everywhere(readings):
    far = {n: each.sigmas for n, each in readings["nothing"].items() if each.sigmas is not None}
    assert len(far) > 25
    assert not {name: sigmas for name, sigmas in far.items() if abs(sigmas) > 3}


def test_a_shuffle_of_tokens_would_find_labels_in_an_untrained_router():
    # Its expert hangs on the id, and so does the class, which was dealt to ids by lot: token by
    # token that looks like a great find.
    trace = Planted("untrained", **SMALL).trace()
    expert_T, generator = chance.first_choice(trace.layers[0]), np.random.default_rng(0)
    null = [clusters.ami(expert_T, generator.permutation(trace.class_T)) for _ in range(20)]
    found = clusters.ami(expert_T, trace.class_T)
    assert (found - np.mean(null)) / np.std(null, ddof=1) > 10


@pytest.mark.parametrize(
    ("follows", "column", "unit", "names"),
    [
        ("desk", "desk_T", "document_T", ("u_desk", "ami_desk", "domain_top")),
        ("class", "class_T", "id_T", ("u_class", "ami_class")),
        ("token", "id_T", None, ("u_token", "vocabulary_tokens", "vocabulary_types")),
    ],
)
def test_shuffled_labels_lose_their_signal(follows, column, unit, names):
    trace, generator = Planted(follows, **SMALL).trace(), np.random.default_rng(1)
    label_T = getattr(trace, column)
    unit_T = np.arange(trace.tokens) if unit is None else getattr(trace, unit)
    shuffled = {column: chance.by_unit(label_T, unit_T, generator)}
    found = measured(
        dataclasses.replace(trace, **shuffled), "information", "clusters", "domains", "vocabulary"
    )
    assert all(abs(found[name].sigmas) < 3 for name in names)


def test_shuffled_inputs_lose_their_clusters():
    trace = Planted("cluster", **SMALL).trace()
    layer = trace.layers[0]
    input_SD = np.random.default_rng(1).permutation(layer.input_SD)
    layer = dataclasses.replace(layer, input_SD=input_SD)
    found = measured(dataclasses.replace(trace, layers=(layer,)), "clusters", "geometry")
    names = ("ami_cluster", "ami_cluster_whitened", "cohesion")
    assert all(abs(found[name].sigmas) < 3 for name in names)


def compared(one, two):
    """Readings of both comparisons by name."""
    first, second, found = one.trace(), two.trace(), []
    for name in registry.names("comparison"):
        measure = registry.lookup("comparison", name)
        found += measure(second, first.layers[0], second.layers[0], np.random.default_rng(0))
    return {each.name: each for each in found}


def test_seeds_of_one_structure_are_matched_and_unlike_ones_are_not():
    same = compared(Planted("cluster", **SMALL), Planted("cluster", router=1, **SMALL))
    assert same["matched"].value == 1 and same["matched"].sigmas > 10
    assert same["matched_given_id"].sigmas > 10
    assert same["saturation"].value < 0.5  # their experts have other names
    unlike = compared(Planted("nothing", **SMALL), Planted("nothing", router=1, **SMALL))
    for name in ("matched", "matched_given_id", "saturation", "change_rate"):
        assert abs(unlike[name].sigmas) < 3


def test_a_router_that_changes_little_is_saturated():
    first = Planted("cluster", choices=1, **SMALL)
    found = compared(first, first)
    assert found["saturation"].value == 1 and found["change_rate"].value == 0
    assert found["saturation"].sigmas > 10 and found["change_rate"].sigmas < -10
