"""Each router does what its name says: behaviour, not label."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from moe import registry
from moe.registry import Mistake
from moe.routers.auction import Base
from moe.routers.dense import DenseSoftmax
from moe.routers.gshard import GShard
from moe.routers.guided import Labelled
from moe.routers.loss_free import LossFree
from moe.routers.parts.losses import Adaptive, Losses
from moe.routers.parts.noise import FixedNoise, Gumbel, Jitter, LearnedNoise
from moe.routers.parts.rules import Proportional, Sign
from moe.routers.parts.scores import Sigmoid, SqrtSoftplus
from moe.routers.sinkhorn import Sinkhorn
from moe.routers.stability import Frozen, LearnedThenFrozen, Redrawn
from moe.routers.top_k import Logits, TopK, chance
from tests.fakes.routed import NO_IDS, E, T, params_of, skewed, violation


def one_token(router, *logits):
    """The plan of one token with these logits, through x = logits and w = 1."""
    x_TD = jnp.array([logits])
    params = {"w_DE": jnp.eye(len(logits))}
    return router(params, x_TD, jnp.zeros(1, jnp.int32), len(logits), None)


def test_top_k_of_a_known_distribution():
    # One-hot inputs pick a row of w: logits ln(1, 2, 5) have probabilities 1/8, 2/8, 5/8.
    router = TopK(k=2, losses=Losses(load_balance=0.5, z_loss=0.25))
    params = {"w_DE": jnp.log(jnp.array([[1.0, 2.0, 5.0], [5.0, 2.0, 1.0]]))}
    routing = router(params, jnp.eye(2), jnp.zeros(2, jnp.int32), 3, None)
    np.testing.assert_array_equal(routing.plan.expert_TK, [[2, 1], [0, 1]])
    # Renormalised over the chosen two: 5/7 and 2/7.
    np.testing.assert_allclose(routing.plan.gate_TK, [[5 / 7, 2 / 7]] * 2, rtol=1e-6)
    losses, metrics = router.losses(jax.tree.map(lambda a: a.sum(axis=0), routing.terms), 2)
    # f = (1, 2, 1)/4, P = (3/8, 2/8, 3/8): 3 * (3/32 + 4/32 + 3/32) = 30/32.
    np.testing.assert_allclose(metrics["load_balance"], 30 / 32, rtol=1e-6)
    np.testing.assert_allclose(losses["load_balance"], 15 / 32, rtol=1e-6)
    # logsumexp of ln(1, 2, 5) is ln 8 for both tokens.
    np.testing.assert_allclose(losses["z_loss"], 0.25 * np.log(8) ** 2, rtol=1e-6)


def test_top_1_keeps_its_probability_as_gate():
    logits = np.log([1.0, 2.0, 5.0])
    plan = one_token(TopK(k=1, renormalize=True), *logits).plan
    np.testing.assert_allclose(plan.gate_TK, [[5 / 8]], rtol=1e-6)


def test_scores_orders_and_scale():
    # sigmoid(ln 3) = 3/4, sigmoid(0) = 1/2: over their sum 3/5 and 2/5, times 2.
    plan = one_token(TopK(k=2, score=Sigmoid(), scale=2.0), np.log(3.0), 0.0, -1.0).plan
    np.testing.assert_allclose(plan.gate_TK, [[1.2, 0.8]], rtol=1e-6)
    # softplus(0) = ln 2; softplus(ln(e - 1)) = 1.
    router = TopK(k=2, score=SqrtSoftplus(), renormalize=False)
    plan = one_token(router, 0.0, np.log(np.e - 1), -9.0).plan
    np.testing.assert_allclose(plan.gate_TK, [[1, np.sqrt(np.log(2))]], rtol=1e-5)
    # Softmax over the chosen two alone: e^1 / (e^1 + e^0).
    plan = one_token(TopK(k=2, order="choose_first", renormalize=False), 1.0, 0.0, 0.0).plan
    np.testing.assert_allclose(plan.gate_TK[0, 0], np.e / (np.e + 1), rtol=1e-6)


def test_ties_go_to_the_lowest_index():
    plan = one_token(TopK(k=3), 0.0, 0.0, 0.0, 0.0, 0.0).plan
    np.testing.assert_array_equal(plan.expert_TK, [[0, 1, 2]])


def test_groups_limit_the_choice():
    # Groups (0, 1) and (2, 3). Best score: 2 in the first group. Best pair: 1.5 + 1.4 > 2 + 0.
    logits = (2.0, 0.0, 1.5, 1.4)
    by_max = TopK(k=2, groups=2, groups_kept=1)
    by_sum = dataclasses.replace(by_max, group_score="top2_sum", score=Sigmoid())
    np.testing.assert_array_equal(one_token(TopK(k=2), *logits).plan.expert_TK, [[0, 2]])
    np.testing.assert_array_equal(one_token(by_max, *logits).plan.expert_TK, [[0, 1]])
    # sigmoid: .881 + .5 = 1.381 against .818 + .802 = 1.620.
    np.testing.assert_array_equal(one_token(by_sum, *logits).plan.expert_TK, [[2, 3]])


def test_dense_softmax_weighs_everyone():
    plan = one_token(DenseSoftmax(), *np.log([1.0, 2.0, 5.0])).plan
    np.testing.assert_array_equal(plan.expert_TK, [[0, 1, 2]])
    np.testing.assert_allclose(plan.gate_TK, [[1 / 8, 2 / 8, 5 / 8]], rtol=1e-6)


@pytest.mark.parametrize("noise", [LearnedNoise(), FixedNoise(8.0), Gumbel(), Jitter(0.5)])
def test_noise_is_in_training_alone_and_differs_between_steps(noise):
    router = TopK(k=2, noise=noise)
    params, x_TD = params_of(router), skewed()
    calm = router(params, x_TD, NO_IDS, E, None).plan
    plain = TopK(k=2)(params, x_TD, NO_IDS, E, None).plan
    jax.tree.map(np.testing.assert_array_equal, calm, plain)
    steps = [router(params, x_TD, NO_IDS, E, jax.random.key(s)).plan for s in (0, 0, 1)]
    jax.tree.map(np.testing.assert_array_equal, steps[0], steps[1])
    assert np.any(steps[0].gate_TK != steps[2].gate_TK)


def test_gumbel_draws_experts_from_the_softmax():
    logits = jnp.log(jnp.array([1.0, 2.0, 5.0]))
    x_TD = jnp.broadcast_to(logits, (4000, 3))
    router, ids = TopK(k=1, noise=Gumbel()), jnp.zeros(4000, jnp.int32)
    plan = router({"w_DE": jnp.eye(3)}, x_TD, ids, 3, jax.random.key(0)).plan
    share = np.bincount(plan.expert_TK[:, 0], minlength=3) / 4000
    # Standard error of a share is at most sqrt(1/4/4000) = 0.008.
    np.testing.assert_allclose(share, [1 / 8, 2 / 8, 5 / 8], atol=0.03)
    # The gate is the probability without noise.
    want = np.array([1 / 8, 2 / 8, 5 / 8])[plan.expert_TK[:, 0]]
    np.testing.assert_allclose(plan.gate_TK[:, 0], want, rtol=1e-5)


def test_chance_of_selection_is_that_of_new_noise():
    clean_TE = jnp.array([[1.0, 0.5, 0.0, -0.5]])
    noisy_TE = jnp.array([[0.8, 0.9, 0.1, -0.2]])
    found = chance(Logits(clean_TE, noisy_TE, jnp.full((1, 1), 0.5)), k=2)[0]
    for e in range(4):
        others = np.sort(np.delete(np.asarray(noisy_TE[0]), e))[::-1]
        draws = clean_TE[0, e] + 0.5 * np.random.default_rng(e).standard_normal(200_000)
        np.testing.assert_allclose(found[e], np.mean(draws > others[1]), atol=0.005)


@pytest.mark.parametrize("fields", [{}, {"renormalize": False}, {"scale": 2.5}], ids=str)
def test_gshard_uses_the_second_expert_at_random(fields):
    # Of experts 0 and 1 the second has 0.3 of the sum, of all three 0.21: it is used with
    # probability 2 * 0.3 in training, always otherwise. Standard error: sqrt(0.24 / 4000) = 0.008.
    x_TD = jnp.broadcast_to(jnp.log(jnp.array([7.0, 3.0, 2.9])), (4000, 3))
    params, ids, router = {"w_DE": jnp.eye(3)}, jnp.zeros(4000, jnp.int32), GShard(**fields)
    plan = router(params, x_TD, ids, 3, jax.random.key(0)).plan
    assert np.all(plan.expert_TK[:, 0] == 0)
    np.testing.assert_allclose(np.mean(plan.expert_TK[:, 1] == 1), 0.6, atol=0.03)
    assert set(np.unique(plan.expert_TK[:, 1])) == {1, 3}  # 3 experts: 3 is nobody
    np.testing.assert_array_equal(router(params, x_TD, ids, 3, None).plan.expert_TK[:, 1], 1)


# Gates of three experts whose logits are 2 ln 2, 0 and -2 ln 2, of which two are chosen: the
# softmax over all is (16, 4, 1) / 21 and over two (4, 1) / 5, the sigmoids are 4/5, 1/2 and 1/5.
SOFTMAX, TWO, SIGMOID = np.array([[16 / 21, 4 / 21], [4 / 5, 1 / 5], [4 / 5, 1 / 2]])
PAPERS = {
    "top_k": TWO,  # Shazeer et al. eq. 3-5: a softmax over the k
    "noisy_top_k": TWO,
    "gshard": TWO,  # algorithm 1
    "mixtral": TWO,
    "qwen3": TWO,  # norm_topk_prob of the released models
    "v_moe": SOFTMAX,  # the k largest of the softmax, section 2.1
    "batch_priority": SOFTMAX,  # the same router
    "olmoe": SOFTMAX,  # norm_topk_prob is false
    "deepseek_v2": 16 * SOFTMAX,  # no sum in eq. 22; its factor
    "sigmoid": SIGMOID / 1.3,  # over their sum, 4/5 + 1/2
    "deepseek_v3": 2.5 * SIGMOID / 1.3,  # eq. 13-16 and its factor
    "loss_free": SIGMOID,  # eq. 1-3 of 2408.15664: the score itself
}


@pytest.mark.parametrize("name", PAPERS)
def test_published_routers_renormalise_where_their_papers_do(name):
    router = dataclasses.replace(registry.lookup("router", name), k=2, groups=1, groups_kept=1)
    params = router.init(jax.random.key(0), 3, 3, 5) | {"w_DE": jnp.eye(3)}
    x_TD = 2 * jnp.log(2.0) * jnp.array([[1.0, 0.0, -1.0]])
    plan = router(params, x_TD, jnp.zeros(1, jnp.int32), 3, None).plan
    np.testing.assert_allclose(plan.weight_TE(1, 3), [[*PAPERS[name], 0]], rtol=1e-5)


UNGROUPED = (Base, Sinkhorn, Labelled)  # a balance, a label
LIMITED = {"k": 2, "groups": 4, "groups_kept": 1}


def limited():
    """Every class of routers that has groups of experts, with four groups of which one is kept."""
    classes = {type(registry.lookup("router", name)) for name in registry.names("router")}
    return sorted((c for c in classes if issubclass(c, TopK)), key=lambda c: c.__name__)


@pytest.mark.parametrize("router", limited())
def test_groups_hold_in_training_as_at_evaluation_or_are_refused(router):
    router = router(**LIMITED | ({"k": 1} if router is Base else {}))
    try:
        router.check("r", E)
    except Mistake as error:
        assert str(error).startswith("r.groups=4: must be groups_kept=1, since ")
        assert type(router) in UNGROUPED
        return
    assert type(router) not in UNGROUPED
    params, x_TD = params_of(router), skewed()
    for rng in (None, jax.random.key(0)):
        plan = router(params, x_TD, NO_IDS, E, rng).plan
        groups = np.asarray(plan.assigned_TE(T, E)).reshape(T, 4, E // 4).sum(axis=2)
        assert (groups > 0).sum(axis=1).max() == 1


@pytest.mark.parametrize("rule", [Sign(), Proportional()])
def test_loss_free_bias_balances_a_skewed_stream(rule):
    router = LossFree(k=2, rule=rule, rate=0.02)
    params = params_of(router)
    step = jax.jit(lambda params, x_TD: router(params, x_TD, NO_IDS, E, None).plan)
    before = violation(step(params, skewed()))
    w_DE = params["w_DE"]
    for seed in range(80):
        plan = step(params, skewed(seed))
        params = router.update(params, plan.assigned_TE(T, E).sum(axis=0), {})
    after = np.mean([violation(step(params, skewed(100 + seed))) for seed in range(10)])
    assert before > 1 and after < 0.5 * before
    np.testing.assert_array_equal(params["w_DE"], w_DE)


def test_bias_steps_by_hand():
    # Loads 6, 2, 1 have mean 3: the first goes down, the others up; nobody's gate changes.
    router = LossFree(k=1, rate=0.5)
    params = {"w_DE": jnp.eye(3), "state": {"bias_E": jnp.zeros(3), "step": jnp.int32(0)}}
    moved = router.update(params, jnp.array([6.0, 2, 1]), {})
    np.testing.assert_allclose(moved["state"]["bias_E"], [-0.5, 0.5, 0.5])
    centred = dataclasses.replace(router, centred=True)
    moved = centred.update(params, jnp.array([6.0, 2, 1]), {})
    # The mean step 1/6 is taken off.
    np.testing.assert_allclose(moved["state"]["bias_E"], [-2 / 3, 1 / 3, 1 / 3], rtol=1e-6)
    moved = dataclasses.replace(router, rule=Proportional()).update(
        params, jnp.array([6.0, 2, 1]), {}
    )
    np.testing.assert_allclose(moved["state"]["bias_E"], [-1 / 2, 1 / 6, 1 / 3], rtol=1e-6)
    stopped = dataclasses.replace(router, rate_steps=1)
    once = stopped.update(params, jnp.array([6.0, 2, 1]), {})
    twice = stopped.update(once, jnp.array([6.0, 2, 1]), {})
    np.testing.assert_array_equal(twice["state"]["bias_E"], once["state"]["bias_E"])
    biased = {**params, "state": {"bias_E": jnp.array([0.0, 9, 0]), "step": jnp.int32(0)}}
    plan = router(biased, jnp.array([[2.0, 1, 0]]), jnp.zeros(1, jnp.int32), 3, None).plan
    assert plan.expert_TK.item() == 1
    np.testing.assert_allclose(plan.gate_TK, [[1 / (1 + np.exp(-1))]], rtol=1e-6)


@pytest.mark.parametrize("router", [Frozen, Redrawn])
def test_a_frozen_projection_has_noise_and_an_adaptive_weight_beside_it(router):
    adaptive = Adaptive(rate=0.5, low=0.1, high=0.5)
    router = router(noise=LearnedNoise(), losses=Losses(adaptive=adaptive))
    params, x_TD = params_of(router), skewed()
    assert set(params) == {"w_noise_DE", "state"} and set(params["state"]) == {"w_DE", "log_weight"}
    assert router.learned and not Frozen().learned

    @jax.jit
    def gradient(w_noise_DE):
        plan = router(params | {"w_noise_DE": w_noise_DE}, x_TD, NO_IDS, E, jax.random.key(0)).plan
        return jnp.sum(jnp.sin(plan.gate_TK))

    assert float(jnp.abs(jax.grad(gradient)(params["w_noise_DE"])).max()) > 1e-3
    # A load on one expert alone has violation 8 - 1 > 0.5, so the logarithm of the weight is 0.5.
    moved = router.update(params, jnp.eye(E)[0] * T, {})
    np.testing.assert_allclose(moved["state"]["log_weight"], 0.5)
    np.testing.assert_array_equal(moved["state"]["w_DE"], params["state"]["w_DE"])
    np.testing.assert_allclose(router.loss_weight(moved), np.exp(0.5), rtol=1e-6)


def test_the_second_stage_freezes_the_noise_too():
    router, x_TD = LearnedThenFrozen(learn_steps=1, noise=LearnedNoise()), skewed()
    params = router.update(params_of(router), jnp.zeros(E), {})
    before = router.logits(params, x_TD, jax.random.key(0)).deviation_TE
    other = {**params, "w_noise_DE": params["w_noise_DE"] + 1}  # as an optimizer might move it
    after = router.logits(other, x_TD, jax.random.key(0)).deviation_TE
    np.testing.assert_array_equal(before, after)


def test_frozen_redrawn_and_learned_then_frozen():
    x_TD, learned = skewed(), TopK()
    assert set(params_of(Frozen())) == {"state"} == set(params_of(Redrawn()))
    redrawn = Redrawn()
    params = params_of(redrawn)
    plans = [
        redrawn(params, x_TD, NO_IDS, E, r).plan
        for r in (None, None, *jax.random.split(jax.random.key(0)))
    ]
    np.testing.assert_array_equal(plans[0].expert_TK, plans[1].expert_TK)
    assert np.mean(np.asarray(plans[2].expert_TK != plans[3].expert_TK)) > 0.5
    staged = LearnedThenFrozen(learn_steps=2)
    params = params_of(staged)
    other = {**params, "w_DE": -params["w_DE"]}  # as an optimizer might move them
    for step in range(4):
        found = staged({**params, "w_DE": other["w_DE"]}, x_TD, NO_IDS, E, None)
        same = learned({"w_DE": other["w_DE"]}, x_TD, NO_IDS, E, None).plan
        follows = bool(np.all(found.plan.expert_TK == same.expert_TK))
        assert follows == (step < 2), step
        weight = float(found.terms["weight_T"][0])
        assert weight == (step < 2)  # no balance loss in the second stage
        params = staged.update(params, jnp.zeros(E), {})
