"""Scores, gates, losses and plans where float32 ends, against arithmetic by hand."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from moe.routers.batch_priority import BatchPriority
from moe.routers.expert_choice import ExpertChoice
from moe.routers.guided import GuidedLosses, Labelled
from moe.routers.hash import Hash
from moe.routers.loss_free import LossFree
from moe.routers.parts import losses, ranking
from moe.routers.parts.gates import ScoreGate
from moe.routers.parts.losses import Losses
from moe.routers.parts.scores import Sigmoid, Softmax, SqrtSoftplus
from moe.routers.sinkhorn import Sinkhorn, log_plan
from moe.routers.top_k import TopK
from tests.fakes.routed import E, params_of, skewed

RNG = jax.random.key(0)
TWO = np.e / (np.e + 1)  # the share of the better of two scores whose ratio is e


def routed(router, logits_TE, state=None, rng=None):
    """Routes tokens that are their own logits, x = logits and w = 1, with the key or label 1."""
    return _routed(router, jnp.asarray(logits_TE, jnp.float32), state, rng)


@functools.partial(jax.jit, static_argnums=0)
def _routed(router, logits_TE, state, rng):
    T, E = logits_TE.shape
    params = {"w_DE": jnp.eye(E)} | ({"state": state} if state else {})
    return router(params, logits_TE, jnp.ones(T, jnp.int32), E, rng)


def first_gate(router, **how):
    """The first gate of one token and its gradient by the logits, as a function of those."""

    def gate(logits_E):
        return routed(router, logits_E[None], **how).plan.gate_TK[0, 0]

    return jax.jit(jax.value_and_grad(gate))


def no_bias(E):
    return {"bias_E": jnp.zeros(E), "step": jnp.int32(0)}


@pytest.mark.parametrize("low", [-50.0, -100.0])
@pytest.mark.parametrize("router", [TopK(score=Sigmoid()), LossFree(renormalize=True)])
def test_sigmoid_gates_far_below_zero_sum_to_1(router, low):
    # sigmoid(z) is e^z there: gates e / (e + 1) and 1 / (e + 1), the first one's derivatives
    # g (1 - g) and its negative, and 0 by the logit of the expert that was not chosen.
    state = no_bias(3) if isinstance(router, LossFree) else None
    value, slope_E = first_gate(router, state=state)(jnp.array([low, low - 1, low - 3]))
    np.testing.assert_allclose(value, TWO, rtol=1e-5)
    np.testing.assert_allclose(slope_E, [TWO * (1 - TWO), -TWO * (1 - TWO), 0], rtol=1e-5)


@pytest.mark.parametrize("router", [TopK(score=Sigmoid()), LossFree(renormalize=True)])
@pytest.mark.parametrize("shift", [-100.0, -50.0, 50.0, 100.0])
def test_equal_scores_do_not_hide_the_better_logits(router, shift):
    # In float32 sigmoids are 1 from 17 on, and beside a bias of 1 nothing below -17. Expert 0 has
    # the lowest logit; without a bias the best two are 2 and 1, in that order, at any shift.
    state = no_bias(3) if isinstance(router, LossFree) else None
    plan = routed(router, [[shift - 1, shift + 1, shift + 2]], state).plan
    np.testing.assert_array_equal(plan.expert_TK, [[2, 1]])
    if state:  # a bias of 1 brings expert 0 to the front wherever scores differ by less
        state["bias_E"] = jnp.array([1.0, 0, 0])
        plan = routed(router, [[shift - 1, shift + 1, shift + 2]], state).plan
        np.testing.assert_array_equal(plan.expert_TK, [[0, 2]])


def test_two_keys_rank_by_the_first_and_then_by_the_second():
    # Row 0: 5, then 3 and 3 by the second key: places 1, 3, 0. Row 1: all alike, lowest first.
    first_TE = jnp.array([[3.0, 5, 1, 3], [2, 2, 2, 2]])
    then_TE = jnp.array([[0.0, -9, 9, 1], [7, 7, 7, 7]])
    found = ranking.choose_by_both(first_TE, then_TE, 3)
    np.testing.assert_array_equal(found, [[1, 3, 0], [0, 1, 2]])
    np.testing.assert_array_equal(ranking.choose_by_both(first_TE, then_TE, 1), [[1], [0]])


def test_the_second_choice_is_not_a_tie_of_zeros():
    # softmax(3000, 1000, 2000) is (1, 0, 0) in float32.
    np.testing.assert_array_equal(routed(TopK(k=2), [[3e3, 1e3, 2e3]]).plan.expert_TK, [[0, 2]])


def test_groups_are_ranked_by_sums_too_small_for_float32():
    # e^-100 times 1 + 1 against e^0.5 + e^-9: the first pair has more.
    router = TopK(score=Sigmoid(), groups=2, groups_kept=1, group_score="top2_sum")
    plan = routed(router, [[-99.5, -109, -100, -100]]).plan
    np.testing.assert_array_equal(plan.expert_TK, [[2, 3]])


def test_epsilon_is_in_units_of_the_largest_score():
    # Scores of ratio 3 : 1 at any height: 3 / (4 + 2 * 3) and 1 / 10.
    router = TopK(score=Sigmoid(), epsilon=2.0)
    gate_TK = routed(router, [[low, low - np.log(3), low - 5] for low in (-20, -60)]).plan.gate_TK
    np.testing.assert_allclose(gate_TK, [[0.3, 0.1]] * 2, rtol=1e-5)


@pytest.mark.parametrize("low", [-20.0, -50.0, -90.0])
def test_balance_with_sigmoid_scores_is_that_of_their_ratio(low):
    # Two experts, scores of ratio 3 : 1 for all tokens: f = (1, 0), P = (3/4, 1/4), 2 * 3/4 = 1.5.
    # By the first logit: 1.5 (1 - P_0) = 3/8, and the loss cannot be lowered by all logits.
    router = TopK(k=1, score=Sigmoid(), losses=Losses(load_balance=1.0, z_loss=0.0))

    def loss(logits_E):
        terms = routed(router, jnp.broadcast_to(logits_E, (4, 2))).terms
        return router.losses(jax.tree.map(lambda a: a.sum(axis=0), terms), 4)[0]["load_balance"]

    value, slope_E = jax.jit(jax.value_and_grad(loss))(jnp.array([low, low - np.log(3)]))
    np.testing.assert_allclose(value, 1.5, rtol=1e-5)
    np.testing.assert_allclose(slope_E, [3 / 8, -3 / 8], rtol=1e-4)


def test_sqrt_softplus_and_its_slope_far_below_zero():
    # softplus(z) is e^z there: the score is e^(z / 2), its slope half of that.
    score = SqrtSoftplus()
    value_Z, slope_Z = jax.jit(jax.vmap(jax.value_and_grad(score)))(
        jnp.array([-86.0, -88, -100, -1e3, 1e3])
    )
    want_Z = np.exp([-43.0, -44, -50, -500, 0])
    want_Z[4] = np.sqrt(1e3)  # softplus(z) is z: sqrt(z), 1 / (2 sqrt(z))
    np.testing.assert_allclose(value_Z, want_Z, rtol=1e-5, atol=1e-37)
    np.testing.assert_allclose(slope_Z[:4], want_Z[:4] / 2, rtol=1e-5, atol=1e-37)
    np.testing.assert_allclose(slope_Z[4], 0.5 / np.sqrt(1e3), rtol=1e-5)


def test_an_expert_that_is_not_chosen_sends_no_nan():
    # Scores of the two chosen are 1 and sqrt(ln 2); the third one's is e^-50, with no part in it.
    router = TopK(score=SqrtSoftplus())
    value, slope_E = first_gate(router)(jnp.array([np.log(np.e - 1), 0, -100]))
    np.testing.assert_allclose(value, 1 / (1 + np.sqrt(np.log(2))), rtol=1e-5)
    assert np.isfinite(slope_E).all() and slope_E[0] > 0 > slope_E[1] and slope_E[2] == 0


@pytest.mark.parametrize("score", [Softmax(), Sigmoid(), SqrtSoftplus()])
def test_forced_choices_share_the_gate_by_their_ratio(score):
    # Experts 1 and 2 are forced and 200 behind: scores of ratio e, or sqrt(e) under the root.
    want = np.sqrt(np.e) / (np.sqrt(np.e) + 1) if isinstance(score, SqrtSoftplus) else TWO
    logits_E = jnp.array([0.0, -200, -201, 0])
    hashed = first_gate(
        Hash(k=2, gate=ScoreGate(score)), state={"expert_VK": jnp.array([[0, 3], [1, 2]])}
    )
    labelled = first_gate(Labelled(k=2, labels=2, score=score))
    found = hashed(logits_E), labelled(jnp.array([0.0, -200, 0, -201]))  # label 1 has experts 1, 3
    for value, slope_E in found:
        np.testing.assert_allclose(value, want, rtol=1e-5)
        assert np.isfinite(slope_E).all() and slope_E.max() > 0.05


def test_sinkhorn_gates_of_far_experts_share_by_their_ratio():
    # Two tokens prefer expert 0 by 100; each is given two of three experts.
    router = Sinkhorn(k=2)
    routing = routed(router, [[-100.0, -200, -201], [-100, -200, -201]], rng=RNG)
    assert np.isfinite(routing.plan.gate_TK).all()
    np.testing.assert_allclose(routing.plan.gate_TK.sum(axis=1), 1, rtol=1e-6)
    _, slope_E = first_gate(router, rng=RNG)(jnp.array([-100.0, -200, -201]))
    assert np.isfinite(slope_E).all()


@pytest.mark.parametrize("shift", [-30.0, -100.0, 30.0])
def test_sinkhorn_ignores_a_shift_of_a_column_and_of_a_row(shift):
    # The nearest matrix with given sums is r_t exp(z_te) c_e: a factor e^shift of a column goes
    # into c_e, of a row into r_t.
    logits_TE = skewed() @ params_of(Sinkhorn())["w_DE"]
    plain = log_plan(logits_TE, 1e-6, 1000)
    moved = log_plan(logits_TE.at[:, 0].add(shift).at[3].add(-shift), 1e-6, 1000)
    np.testing.assert_allclose(moved, plain, atol=1e-3)
    np.testing.assert_allclose(jnp.exp(moved).sum(axis=0), 1 / E, rtol=1e-3)
    np.testing.assert_array_equal(moved.argmax(axis=1), plain.argmax(axis=1))


def test_experts_choose_the_best_tokens_where_probabilities_are_0():
    # Expert 1 is 200 behind for all: e^-200 is 0 in float32, and its best token is the last.
    router = ExpertChoice(capacity_factor=0.5)
    plan = routed(router, [[0.0, -200], [0, -199], [0, -198], [0, -197]]).plan
    np.testing.assert_array_equal(plan.token_EC, [[0], [3]])


@pytest.mark.parametrize("shift", [-100.0, 0.0, 100.0])
def test_the_surest_come_first_where_scores_are_equal_in_float32(shift):
    # One slot for four tokens of expert 0: that of the highest logit, at any shift.
    router = BatchPriority(k=1, capacity_factor=0.5, score=Sigmoid())
    plan = routed(router, [[shift + logit, shift - 9] for logit in (1, 2, 4, 3)]).plan
    np.testing.assert_array_equal(plan.token_EC, [[2], [4]])


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e20])
def test_unit_vectors_at_any_scale(scale):
    # (3, 4) has norm 5; the derivative of 3 / norm by 3 is (1 - 9/25) / norm.
    vector_D = scale * jnp.array([3.0, 4])
    np.testing.assert_allclose(ranking.unit(vector_D, 0), [0.6, 0.8], rtol=1e-6)
    slope_DD = jax.jit(jax.jacobian(lambda v: ranking.unit(v, 0)))(vector_D)
    np.testing.assert_allclose(slope_DD[0] * scale, [16 / 125, -12 / 125], rtol=1e-5)


def test_a_zero_vector_has_no_direction_and_no_slope():
    slope_DD = jax.jit(jax.jacobian(lambda v: ranking.unit(v, 0)))(jnp.zeros(2))
    np.testing.assert_array_equal(slope_DD, 0)
    # Columns (0, 0) and (3, 4): cosines 0 against the identity's 1 and 0, so |0 - 1| / 4 / 2.
    value, slope_DE = jax.jit(jax.value_and_grad(losses.overlap))(jnp.array([[0.0, 3], [0, 4]]))
    np.testing.assert_allclose(value, 1 / 8, rtol=1e-6)
    assert np.isfinite(slope_DE).all()


@pytest.mark.parametrize("scale", [1e-25, 1.0, 1e25])
def test_variation_is_the_same_at_any_scale(scale):
    # Sums 3 and 1 have mean 2 and variance 1: 1/4; nothing at all does not vary.
    np.testing.assert_allclose(losses.cv_squared(scale * jnp.array([3.0, 1])), 1 / 4, rtol=1e-6)
    value, slope_E = jax.jit(jax.value_and_grad(losses.cv_squared))(jnp.zeros(2))
    assert value == 0 and np.isfinite(slope_E).all()


@pytest.mark.parametrize(
    "field", ["load_balance", "z_loss", "importance", "load", "orthogonality", "guidance"]
)
def test_a_loss_of_weight_0_is_not_there(field):
    # 0 * nan and 0 * inf are nan: neither value nor gradient may know of what weighs nothing.
    every = {f.name: 0.1 for f in dataclasses.fields(GuidedLosses) if type(f.default) is float}
    part = {
        "load_balance": "weight_T",
        "z_loss": "z_T",
        "importance": "probability_TE",
        "load": "selected_TE",
        "orthogonality": "overlap_T",
        "guidance": "guidance_T",
    }
    sums = {
        "count_TE": jnp.ones(2),
        "probability_TE": jnp.ones(2),
        "selected_TE": jnp.ones(2),
        **{name: jnp.ones(()) for name in ("z_T", "weight_T", "overlap_T", "guidance_T")},
    }
    assert set(every) == set(part)
    sums[part[field]] = sums[part[field]] * jnp.nan
    weights = {**every, field: 0.0}
    if field == "importance":  # reads what the balance reads
        weights["load_balance"] = 0.0
    found = GuidedLosses(**weights)(sums, 2)[0]
    assert field not in found and len(found) == sum(map(bool, weights.values()))
    assert np.isfinite(list(found.values())).all()
    assert not np.isfinite(GuidedLosses(**every)(sums, 2)[0][field])
