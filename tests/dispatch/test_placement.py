"""Placement of experts: the published example, equal loads, and outputs that do not move."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from moe.decode import replicas
from moe.dispatch import placement
from moe.dispatch.all_to_all import AllToAll
from moe.dispatch.gather import Gather
from moe.dispatch.placed import Placed, hold
from moe.dispatch.ragged import Ragged
from moe.experts.contract import Pool
from moe.experts.feed_forward import SwiGLU
from moe.model.layer import MoE
from moe.model.transformer import Transformer
from moe.plan import Choices, Mix, Tokens
from moe.routers.top_k import TopK
from tests.contracts.dispatch import mesh_of, served

# The example in the README of the published code: 2 layers of 12 experts, 16 replicas, 4 groups,
# 2 nodes, 8 devices.
LOAD = [
    [90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86],
    [20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27],
]
PLACES = [
    [5, 6, 5, 7, 8, 4, 3, 4, 10, 9, 10, 2, 0, 1, 11, 1],
    [7, 10, 6, 8, 6, 11, 8, 9, 2, 4, 5, 1, 5, 0, 3, 1],
]


@pytest.mark.parametrize("layer", [0, 1])
def test_the_published_example(layer):
    found = placement.place(np.array(LOAD[layer]), 16, devices=8, nodes=2, groups=4)
    np.testing.assert_array_equal(found, PLACES[layer])


def test_packing_by_hand():
    # 9 to pack 0, 8 to pack 1, 3 to pack 1 (8 < 9), then pack 1 is full: 1 to pack 0.
    pack_X, place_X = placement.pack(np.array([3, 9, 8, 1]), 2)
    np.testing.assert_array_equal(pack_X, [1, 0, 1, 0])
    np.testing.assert_array_equal(place_X, [1, 0, 0, 1])


def test_copies_by_hand():
    # 10, 4, 3: expert 0 (10), 0 again (5 each), 1 (4 against 10 / 3).
    np.testing.assert_array_equal(placement.copies(np.array([10, 4, 3]), 6), [0, 1, 2, 0, 0, 1])


@pytest.mark.parametrize(("nodes", "groups"), [(1, 1), (2, 1), (2, 4), (4, 8)])
def test_every_expert_is_held_and_groups_stay_in_a_node(nodes, groups):
    load_E = np.random.default_rng(0).zipf(1.5, 64).clip(max=500)
    expert_P = placement.place(load_E, 96, devices=8, nodes=nodes, groups=groups)
    assert expert_P.shape == (96,) and set(expert_P) == set(range(64))
    if groups % nodes == 0:
        node_P = np.arange(96) // (96 // nodes)
        homes = {(group, node) for group, node in zip(expert_P // (64 // groups), node_P)}  # noqa: B905
        assert len(homes) == groups


def test_copies_even_the_load_of_devices():
    load_E = 1000 / (1 + np.arange(64.0))
    load = {}
    for name, expert_P in {
        "in order": np.arange(64),
        "packed": placement.place(load_E, 64, devices=8),
        "copied": placement.place(load_E, 80, devices=8),
    }.items():
        found = placement.device_load(load_E, expert_P, 8)
        np.testing.assert_allclose(found.sum(), load_E.sum())
        load[name] = found.max() / found.mean()
    # Experts 0 to 7 hold 2718 of 4744: 4.6 times the mean. The hottest alone is 1000 / 593.
    np.testing.assert_allclose(load["in order"], 4.583, atol=2e-3)
    assert load["packed"] < 1.9 and load["copied"] < 1.1


@pytest.mark.parametrize(
    ("counts", "line"),
    [
        ((3, 1), "replicas=3: must be >= the 4 experts"),
        ((6, 4), "devices=4: must divide replicas=6"),
        ((6, 0), "devices=0: must divide replicas=6"),
        ((8, 4, 3), "nodes=3: must divide devices=4"),
        ((8, 4, 1, 3), "groups=3: must divide the 4 experts"),
    ],
)
def test_counts_that_do_not_divide_are_named(counts, line):
    with pytest.raises(ValueError, match=f"^{line}$"):
        placement.place(np.ones(4), *counts)


T, D, E, K = 48, 8, 8, 3
EXPERTS = SwiGLU(6)


@functools.partial(jax.jit, static_argnums=(0, 4))
def run(dispatch, plan, x_TD, params, count):
    return served(dispatch, plan, x_TD, Pool(params, EXPERTS, count))


def drawn():
    logits_TE = jax.random.normal(jax.random.key(0), (T, E)) - jnp.arange(E)[None]
    gate_TK, expert_TK = jax.lax.top_k(jax.nn.softmax(logits_TE), K)
    unmade = jnp.arange(T)[:, None] % 7 + jnp.arange(K)[None] == 8
    return Choices(jnp.where(unmade, E, expert_TK), jnp.where(unmade, 0, gate_TK))


@pytest.mark.parametrize("name", ["ragged", "all_to_all"])
def test_copies_answer_as_one_and_share_the_tokens(name):
    plan, params = drawn(), EXPERTS.init(jax.random.key(1), E, D)
    x_TD = jax.random.normal(jax.random.key(2), (T, D))
    want_TD, want = run(Ragged(), plan, x_TD, params, E)
    expert_P = jnp.asarray(placement.place(np.asarray(want.load_E), 12, devices=4))
    dispatch = Placed({"ragged": Ragged(), "all_to_all": AllToAll(4.0)}[name], 12)
    with jax.set_mesh(mesh_of(1, 4)):
        y_TD, stats = run(dispatch, plan, x_TD, hold(params, expert_P), E)
    np.testing.assert_allclose(y_TD, want_TD, atol=1e-5)
    np.testing.assert_array_equal(stats.load_E, want.load_E)
    assert float(stats.dropped_K.sum()) == 0


def test_a_hot_expert_needs_less_room_when_it_has_copies():
    # Every token to expert 0 of 4, room for 48 / 4 rows of each: 36 dropped. With 5 copies of it
    # among 8 places the room is 6 each and 30 tokens are served.
    plan = Choices(jnp.zeros((T, 1), jnp.int32), jnp.ones((T, 1)))
    params = EXPERTS.init(jax.random.key(1), 4, D)
    x_TD = jnp.ones((T, D))
    _, stats = run(Gather(1.0), plan, x_TD, params, 4)
    assert float(stats.dropped_K.sum()) == 36
    expert_P = jnp.asarray(placement.place(np.array([48, 0, 0, 0]), 8, devices=4))
    assert int(jnp.sum(expert_P == 0)) == 5
    _, stats = run(Placed(Gather(1.0), 8), plan, x_TD, hold(params, expert_P), 4)
    assert float(stats.dropped_K.sum()) == 48 - 30


def test_other_plans_are_refused():
    with pytest.raises(ValueError, match="^model.moe.dispatch=Placed: serves token choice only"):
        plan = Mix(jnp.ones((2, 2, 1)), jnp.ones((2, 2, 1)))
        Placed()(plan, jnp.ones((2, D)), Pool({}, EXPERTS, 2))


@pytest.mark.slow
def test_a_whole_model_is_served_from_copies():
    model = Transformer(
        vocab_size=32,
        num_layers=2,
        model_width=D,
        moe=MoE(num_experts=4, router=TopK(k=2), experts=SwiGLU(6)),
        moe_layers=(0, 1),
    )
    tokens = Tokens(jax.random.randint(jax.random.key(3), (2, 12), 0, 32))
    params = jax.jit(model.init)(jax.random.key(0), tokens)["params"]
    want_BLV, reports = jax.jit(model.apply)({"params": params}, tokens)
    expert_NP = np.stack([placement.place(load, 6, devices=2) for load in reports.load_NE])
    placed, held = replicas.serve(model, params, expert_NP)
    assert placed == dataclasses.replace(
        model, moe=dataclasses.replace(model.moe, dispatch=Placed(model.moe.dispatch, 6))
    )
    got_BLV, again = jax.jit(placed.apply)({"params": held}, tokens)
    np.testing.assert_allclose(got_BLV, want_BLV, atol=1e-5)
    np.testing.assert_array_equal(again.load_NE, reports.load_NE)
