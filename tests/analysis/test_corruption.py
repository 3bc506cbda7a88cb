"""Interventions in routing: what each does to a plan, and what is told of their costs."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from moe.analysis import interventions
from moe.analysis.corruption import Corrupted, NextBest, Only, Renamed, Silent, Uniform
from moe.analysis.interventions import Depths, Subject
from moe.experts.feed_forward import SwiGLU
from moe.model.attention import Attention
from moe.model.depth import map_parts, map_routers
from moe.model.layer import MoE
from moe.model.transformer import Transformer
from moe.params import with_state
from moe.plan import Tokens
from moe.registry import Mistake
from moe.routers.dense import Dense
from moe.routers.hash import Hash
from moe.routers.layout import First
from moe.routers.soft import Soft
from moe.routers.top_k import TopK

V, L, D, E = 32, 12, 16, 4
MODEL = Transformer(
    vocab_size=V,
    num_layers=3,
    model_width=D,
    attention=Attention(num_heads=2, num_kv_heads=1, head_width=8),
    moe=MoE(num_experts=E, router=TopK(k=2), experts=SwiGLU(12)),
    moe_layers=(0, 1, 2),
)
TOKENS = Tokens(jax.random.randint(jax.random.key(9), (4, L), 0, V))


@functools.partial(jax.jit, static_argnums=0)
def logits(model, params):
    return model.apply({"params": params}, TOKENS)[0]


def loss(model, params):
    target_BL = jnp.roll(TOKENS.id_BL, -1, axis=1)
    found = logits(model, params)
    return float(optax.softmax_cross_entropy_with_integer_labels(found, target_BL).mean())


def made(model, seed=0):
    return jax.jit(model.init)(jax.random.key(seed), TOKENS)["params"]


@pytest.fixture(scope="module")
def subject():
    return Subject(MODEL, made(MODEL), loss)


def route(corruption, logits_TE, on=True, **arrays):
    """The plan of tokens with these logits: x is them, and the router's matrix the identity."""
    logits_TE = jnp.asarray(logits_TE, jnp.float32)
    T, E = logits_TE.shape
    arrays = {**corruption.arrays(E, 0), **arrays, "on": jnp.asarray(on)}
    params = with_state({"trained": {"w_DE": jnp.eye(E)}}, **arrays)
    return corruption(params, logits_TE, jnp.arange(T) % 7, E, None).plan


def test_next_best_leaves_the_first_choice_out_and_keeps_the_gates():
    logits_TE = np.log([[8, 4, 2, 1], [1, 2, 4, 8]])
    plan = route(NextBest(TopK(k=2)), logits_TE)
    np.testing.assert_array_equal(plan.expert_TK, [[1, 2], [2, 1]])
    # The gates of 8 and 4, renormalised: 8 / 12 and 4 / 12.
    np.testing.assert_allclose(plan.gate_TK, [[2 / 3, 1 / 3]] * 2, rtol=1e-6)
    off = route(NextBest(TopK(k=2)), logits_TE, on=False)
    np.testing.assert_array_equal(off.expert_TK, [[0, 1], [3, 2]])


def test_only_chooses_and_weighs_among_those_that_are_kept():
    kept_E = jnp.array([False, True, True, False])
    router = TopK(k=1, renormalize=False)
    plan = route(Only(router), np.log([[8, 4, 2, 1], [1, 2, 4, 8]]), kept_E=kept_E)
    np.testing.assert_array_equal(plan.expert_TK, [[1], [2]])
    # A softmax over 4 and 2 alone: 4 / 6.
    np.testing.assert_allclose(plan.gate_TK, [[2 / 3], [2 / 3]], rtol=1e-6)


def test_made_anew_it_is_corrupted_nowhere():
    corruption = Renamed(TopK(k=2))
    params = corruption.init(jax.random.key(0), D, E, V)
    x_TD, id_T = jax.random.normal(jax.random.key(1), (5, D)), jnp.arange(5)
    plan = corruption(params, x_TD, id_T, E, None).plan
    wanted = TopK(k=2)(params["trained"], x_TD, id_T, E, None).plan
    np.testing.assert_array_equal(plan.expert_TK, wanted.expert_TK)


def test_silent_makes_no_choice():
    plan = route(Silent(TopK(k=2)), np.zeros((3, E)))
    assert np.all(plan.expert_TK == E) and np.all(plan.gate_TK == 0)


def test_a_cycle_moves_every_expert_and_differs_by_layer():
    names = [np.asarray(Renamed(seed=3).arrays(8, n)["names_E"]) for n in range(2)]
    for names_E in names:
        assert sorted(names_E) == list(range(8)) and np.all(names_E != np.arange(8))
    assert np.any(names[0] != names[1])
    plan = route(Renamed(TopK(k=2)), np.log([[8, 4, 2, 1]]), names_E=jnp.array([2, 0, 3, 1]))
    np.testing.assert_array_equal(plan.expert_TK, [[2, 0]])


def test_uniform_deals_different_experts_evenly_and_the_same_again():
    T = 4000
    alike = np.tile(np.log([[8, 4, 2, 1]]), (T, 1))  # what the trained router would do with all
    plan = route(Uniform(TopK(k=2)), alike)
    assert np.all(plan.expert_TK[:, 0] != plan.expert_TK[:, 1])
    # Each of the 12 ordered pairs has a share of 1/12, standard error sqrt(11/144/4000) = 0.0044.
    pair_T = np.asarray(plan.expert_TK[:, 0] * E + plan.expert_TK[:, 1])
    share = np.bincount(pair_T, minlength=E * E) / T
    wanted = (1 - np.eye(E)).ravel() / 12
    np.testing.assert_allclose(share, wanted, atol=0.018)
    np.testing.assert_allclose(plan.gate_TK, [[2 / 3, 1 / 3]] * T, rtol=1e-6)
    again, other = route(Uniform(TopK(k=2)), alike), route(Uniform(TopK(k=2), seed=1), alike)
    np.testing.assert_array_equal(plan.expert_TK, again.expert_TK)
    assert 0.4 < np.mean(np.asarray(plan.expert_TK != other.expert_TK)) < 0.9  # 3/4 by chance


def test_what_cannot_be_corrupted_is_one_line(subject):
    with pytest.raises(Mistake, match="^Hash: has no next best expert: must choose as top_k$"):
        params = with_state({"trained": Hash(k=1).init(jax.random.key(0), D, E, V)}, on=True)
        NextBest(Hash(k=1))(params, jnp.ones((3, D)), jnp.arange(3), E, None)
    with pytest.raises(Mistake, match="^TopK: k=4 are all experts: there is no next best$"):
        route(NextBest(TopK(k=4)), np.zeros((3, E)))
    soft = Soft()
    params = with_state({"trained": soft.init(jax.random.key(0), D, E, V)}, on=True)
    with pytest.raises(Mistake, match="^Soft: cannot be corrupted: returns Mix, and interventions"):
        Silent(soft)(params, jnp.ones((8, D)), jnp.arange(8), E, None)
    with pytest.raises(Mistake, match=r"^layers=\[3\]: must be MoE layers below 3 whose routers"):
        subject.cost(Silent(), [3])
    dense = MODEL.clone(moe=dataclasses.replace(MODEL.sparse, router=Dense()))
    with pytest.raises(Mistake, match=r"whose routers have parameters, and those are \[\]$"):
        Subject(dense, made(dense), loss).cost(Silent(), [0])


@pytest.mark.parametrize("corruption", [Corrupted(), Uniform(), Renamed(), Only(), NextBest()])
def test_nothing_changes_where_nothing_is_corrupted(corruption, subject):
    same = logits(*subject.corrupted(corruption, []))
    np.testing.assert_array_equal(same, logits(subject.model, subject.params))


def renamed_experts(params, layer, names_E):
    """The model in which expert e of a layer has the weights of expert names_E[e]."""

    def move(experts, n):
        return jax.tree.map(lambda w: w[names_E], experts) if n == layer else experts

    return map_parts(params, "experts", move)


def test_renaming_in_one_layer_is_what_moved_weights_are(subject):
    names_E = np.array([2, 0, 3, 1])
    given = {1: {"names_E": jnp.asarray(names_E)}}
    got = logits(*subject.corrupted(Renamed(), [1], given))
    wanted = logits(MODEL, renamed_experts(subject.params, 1, names_E))
    np.testing.assert_allclose(got, wanted, atol=1e-5)
    assert np.abs(np.asarray(wanted - logits(MODEL, subject.params))).max() > 0.01


def test_a_silent_layer_is_one_whose_experts_give_nothing(subject):
    def mute(experts, n):
        return {**experts, "w_out_EFD": experts["w_out_EFD"] * (n != 2)}

    got = logits(*subject.corrupted(Silent(), [2]))
    wanted = logits(MODEL, map_parts(subject.params, "experts", mute))
    np.testing.assert_allclose(got, wanted, atol=1e-5)


def test_the_same_router_under_other_names_is_matched(subject):
    """A model whose experts are in another order, and its routers in ours, through the matching."""
    order_NE = np.array([[2, 0, 3, 1], [1, 0, 3, 2], [3, 2, 0, 1]])

    def move(router, n):
        return {"w_DE": router["w_DE"][:, order_NE[n]]}  # its expert e is our order_NE[n, e]

    others = map_routers(subject.params, move)
    given = interventions.another(others, order_NE)
    matched = logits(*subject.corrupted(Renamed(), range(3), given))
    np.testing.assert_allclose(matched, logits(MODEL, subject.params), atol=1e-5)
    unmatched = interventions.another(others, np.tile(np.arange(E), (3, 1)))
    assert subject.cost(Renamed(), range(3), unmatched) != pytest.approx(0, abs=1e-4)
    # Where a layer is not meant, the routers are ours.
    ours = logits(*subject.corrupted(Renamed(), [], given))
    np.testing.assert_array_equal(ours, logits(MODEL, subject.params))


def test_layers_with_routers_of_their_own_stay_theirs():
    model = MODEL.clone(num_layers=2, moe_layers=(0, 1), layout=First(Hash(k=2), 1))
    subject = Subject(model, made(model), loss)
    same = logits(*subject.corrupted(Uniform(), []))
    np.testing.assert_array_equal(same, logits(model, subject.params))
    assert subject.cost(Uniform(), [0]) != 0  # a hash's choices can be replaced as well


def told(params):
    """A loss that knows which layers are meant: 1 for layer 0, 2 for layer 1, 4 for layer 2."""
    on = {}

    def read(router, n):
        on[n] = float(router["state"]["on"]) if "trained" in router else 0.0
        return router

    map_routers(params, read)
    return sum(2.0**n * on[n] for n in on)


def test_costs_by_depth_are_of_the_layers_that_they_name(subject):
    calls = []

    def counted(model, params):
        calls.append(told(params))
        return 5 + calls[-1]

    costs = interventions.by_depth(Subject(MODEL, subject.params, counted), Silent())
    np.testing.assert_array_equal(costs.alone_N, [1, 2, 4])
    np.testing.assert_array_equal(costs.upward_N, [1, 3, 7])
    np.testing.assert_array_equal(costs.downward_N, [7, 6, 4])
    assert len(calls) == 1 + 3 * 3 - 3  # the baseline, and each set of layers once


def test_costs_are_shares_of_what_silence_costs():
    three = np.array([0.1, 0.3, -0.1])
    silent = Depths(np.array([0.2, 0.1, 0.0]), np.array([1.0, 1, 1]), np.array([2.0, 2, 2]))
    share = Depths(three, three, three).over(silent)
    np.testing.assert_allclose(share.alone_N, [0.5, 3, np.nan])
    np.testing.assert_allclose(share.upward_N, three)
    np.testing.assert_allclose(share.downward_N, three / 2)


def test_experts_knocked_out_swapped_and_kept(subject):
    out_E = interventions.knock_out(subject, 1)

    def mute(experts, n):
        keep_E11 = jnp.ones((E, 1, 1)).at[2].set(n != 1)
        return {**experts, "w_out_EFD": experts["w_out_EFD"] * keep_E11}

    wanted = loss(MODEL, map_parts(subject.params, "experts", mute)) - subject.baseline
    assert out_E[2] == pytest.approx(wanted, abs=1e-5)
    swap_EE = interventions.swap(subject, 1)
    assert np.all(np.diag(swap_EE) == 0) and np.count_nonzero(swap_EE) == E * E - E
    wanted = (
        loss(MODEL, renamed_experts(subject.params, 1, np.array([0, 3, 2, 3]))) - subject.baseline
    )
    assert swap_EE[1, 3] == pytest.approx(wanted, abs=1e-5)
    order_NE = np.tile(np.arange(E), (3, 1))
    cost_C = interventions.subsets(subject, order_NE, [2, 3, 4])
    assert cost_C[2] == pytest.approx(0, abs=1e-6) and np.all(cost_C[:2] != 0)
