"""What routers do that balance, cluster or are taught: their papers' claims, on small inputs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from moe.routers.auction import Base, balanced_assignment
from moe.routers.batch_priority import BatchPriority
from moe.routers.cosine import Cosine
from moe.routers.expert_choice import ExpertChoice
from moe.routers.guided import Labelled, Supervised
from moe.routers.kmeans import KMeans
from moe.routers.parts.losses import Adaptive, Losses
from moe.routers.parts.rules import Proportional
from moe.routers.relu import ReLURouter
from moe.routers.sinkhorn import Sinkhorn, log_plan
from moe.routers.soft import Soft
from moe.routers.top_k import TopK
from tests.fakes.routed import NO_IDS, D, E, T, load, params_of, skewed, violation


def test_expert_choice_fills_every_slot_and_balances_exactly():
    plan = ExpertChoice(1.0)(params_of(ExpertChoice()), skewed(), NO_IDS, E, None).plan
    assert np.all(plan.token_EC < T) and plan.token_EC.shape == (E, T // E)
    np.testing.assert_array_equal(load(plan), T // E)


def test_batch_priority_serves_the_surest_first():
    # One expert with two slots; probabilities rise with the token's number.
    router = BatchPriority(k=1, capacity_factor=0.5, renormalize=False)
    x_TD = jnp.array([[0.1, 0], [0.2, 0], [0.3, 0], [0.4, 0]])
    plan = router({"w_DE": jnp.eye(2)}, x_TD, jnp.zeros(4, jnp.int32), 2, None).plan
    # C = ceil(0.5 * 4 / 2) = 1: token 3 is served, the others are dropped; expert 1 is empty.
    np.testing.assert_array_equal(plan.token_EC, [[3], [4]])
    np.testing.assert_allclose(plan.gate_EC, [[1 / (1 + np.exp(-0.4))], [0]], rtol=1e-6)


@pytest.mark.parametrize(
    ("fields", "gate"),
    [({}, 0.5), ({"renormalize": True}, 5 / 9), ({"order": "choose_first", "scale": 3.0}, 5 / 3)],
)
def test_batch_priority_ranks_by_the_score_before_it_is_renormalised(fields, gate):
    # Both tokens choose experts 0 and 1, and C = ceil(0.75 * 2 * 2 / 3) = 1. The first token is
    # surer of expert 0, 0.5 against 0.45; over the sum of two it would not be: 0.5 / 0.9 = 0.556
    # against 0.45 / 0.725 = 0.621. Its gate is 0.5, 5/9 of two, or 3 * 5/9.
    x_TD = jnp.log(jnp.array([[0.5, 0.4, 0.1], [0.45, 0.275, 0.275]]))
    router = BatchPriority(k=2, capacity_factor=0.75, **fields)
    plan = router({"w_DE": jnp.eye(3)}, x_TD, jnp.zeros(2, jnp.int32), 3, None).plan
    np.testing.assert_array_equal(plan.token_EC, [[0], [0], [2]])
    np.testing.assert_allclose(plan.gate_EC[0, 0], gate, rtol=1e-6)


def test_sinkhorn_balances_in_training_and_is_greedy_after():
    router = Sinkhorn()
    params, x_TD = params_of(router), skewed()
    training = router(params, x_TD, NO_IDS, E, jax.random.key(0)).plan
    greedy = router(params, x_TD, NO_IDS, E, None).plan
    assert violation(greedy) > 1.5 and violation(training) < 0.5
    np.testing.assert_array_equal(
        greedy.expert_TK, TopK(k=1)(params, x_TD, NO_IDS, E, None).plan.expert_TK
    )
    plan_TE = jnp.exp(log_plan(x_TD @ params["w_DE"], 1e-6, 1000))
    np.testing.assert_allclose(plan_TE.sum(axis=1), 1 / T, rtol=1e-3)
    np.testing.assert_allclose(plan_TE.sum(axis=0), 1 / E, rtol=1e-3)


@pytest.mark.parametrize("tolerance", [0.01, 0.001])
@pytest.mark.parametrize("seed", range(3))
def test_base_is_within_its_tolerance_of_the_best_assignment(seed, tolerance):
    score_TE = jax.random.normal(jax.random.key(seed), (T, E)) + jnp.arange(E)[None] / 2
    expert_T = np.asarray(balanced_assignment(score_TE, tolerance, 5000))
    np.testing.assert_array_equal(np.bincount(expert_T, minlength=E), T // E)
    cost = -np.repeat(np.asarray(score_TE, np.float64), T // E, axis=1)
    best = -cost[linear_sum_assignment(cost)].sum()
    found = float(score_TE[np.arange(T), expert_T].sum())
    slack = T * tolerance * float(score_TE.max() - score_TE.min())
    assert best - slack <= found <= best + 1e-3


def test_base_counts_are_even_whatever_happens():
    one = balanced_assignment(jnp.zeros((10, 4)), 0.01, 5000)  # all alike, and 4 does not divide
    assert sorted(np.bincount(one, minlength=4)) in ([2, 2, 3, 3], [1, 3, 3, 3])
    cut_short = balanced_assignment(skewed() @ jnp.ones((D, E)), 1e-4, 3)
    np.testing.assert_array_equal(np.bincount(cut_short, minlength=E), T // E)
    plan = Base()(params_of(Base()), skewed(), NO_IDS, E, jax.random.key(0)).plan
    np.testing.assert_array_equal(load(plan), T // E)


def test_base_is_as_exact_for_small_logits():
    # A power of two scales every number of the auction exactly: the assignment cannot move.
    score_TE = jax.random.normal(jax.random.key(2), (T, E)) + jnp.arange(E)[None]
    one, small = (balanced_assignment(score_TE * s, 0.01, 5000) for s in (1.0, 2.0**-27))
    np.testing.assert_array_equal(one, small)


def test_soft_slots_and_tokens_are_convex_mixtures():
    plan = Soft(slots=3)(params_of(Soft(slots=3)), skewed(), NO_IDS, E, None).plan
    np.testing.assert_allclose(plan.dispatch_TEC.sum(axis=0), 1, rtol=1e-5)
    np.testing.assert_allclose(plan.combine_TEC.sum(axis=(1, 2)), 1, rtol=1e-5)


def test_cosine_reads_directions_alone():
    router = Cosine(k=2)
    params, x_TD = params_of(router), skewed()
    one, two = (router(params, scale * x_TD, NO_IDS, E, None).plan for scale in (1.0, 7.0))
    np.testing.assert_array_equal(one.expert_TK, two.expert_TK)
    np.testing.assert_allclose(one.gate_TK, two.gate_TK, rtol=1e-5)
    logits = router.compare(params, x_TD, None)
    assert float(jnp.abs(logits).max()) <= 1 / 0.3 + 1e-4  # |cos| <= 1


def test_kmeans_centroids_find_the_clusters():
    centres = jnp.eye(D)[:2]
    x_TD = jnp.repeat(centres, T // 2, axis=0) + 0.05 * jax.random.normal(jax.random.key(0), (T, D))
    router = KMeans(decay=0.5)
    params = {"state": {"centroid_ED": jnp.eye(D)[:2] + 0.6}}
    for _ in range(20):
        routing = router(params, x_TD, NO_IDS, 2, None)
        load_E = routing.plan.assigned_TE(T, 2).sum(axis=0)
        params = router.update(params, load_E, routing.stats)
    np.testing.assert_array_equal(routing.plan.expert_TK[:, 0], np.repeat([0, 1], T // 2))
    np.testing.assert_allclose(params["state"]["centroid_ED"], centres, atol=0.05)
    still = router.update(params, jnp.zeros(2), {"sum": jnp.zeros((2, D))})
    jax.tree.map(np.testing.assert_array_equal, still, params)


def test_relu_settles_at_k_open_experts():
    router = ReLURouter(k=2, start=1e-3)
    params = params_of(router)

    @jax.jit
    def step(params, x_TD):
        def loss(w_DE):
            routing = router({**params, "w_DE": w_DE}, x_TD, NO_IDS, E, None)
            sums = jax.tree.map(lambda a: a.sum(axis=0), routing.terms)
            use = jnp.sum(jax.nn.relu(x_TD @ w_DE)) / T  # a main loss that likes open gates
            return router.losses(sums, T)[0]["sparsity"] - 0.05 * use, routing

        grad, routing = jax.grad(loss, has_aux=True)(params["w_DE"])
        moved = {**params, "w_DE": params["w_DE"] - 0.05 * grad}
        load_E = routing.plan.assigned_TE(T, E).sum(axis=0)
        return router.update(moved, load_E, routing.stats), load_E.sum() / T

    streams = [skewed(s) for s in range(8)]  # without a mean, half the gates are always open
    found = []
    for i in range(400):
        params, open_experts = step(params, streams[i % 8])
        found.append(float(open_experts))
    assert found[0] > 3 and abs(np.mean(found[-50:]) - 2) < 0.4


def test_supervision_teaches_the_label_and_labelled_obeys_it():
    x_TD = jax.random.normal(jax.random.key(0), (T, D))
    label_T = (x_TD[:, 0] > 0).astype(jnp.int32)
    router = Supervised(k=1, labels=2)
    params = params_of(router)

    @jax.jit
    def step(params):
        def loss(params):
            terms = router(params, x_TD, label_T, E, None).terms
            sums = jax.tree.map(lambda a: a.sum(axis=0), terms)
            return router.losses(sums, T)[0]["guidance"]

        return jax.tree.map(lambda a, g: a - 10.0 * g, params, jax.grad(loss)(params))

    def agreement(params):
        plan = router(params, x_TD, label_T, E, None).plan
        return float(np.mean(plan.expert_TK[:, 0] % 2 == label_T))

    before = agreement(params)
    for _ in range(100):
        params = step(params)
    assert before < 0.75 and agreement(params) > 0.95
    unknown = router(params, x_TD, router.keys(NO_IDS, None), E, None)
    known = router(params, x_TD, label_T, E, None)
    jax.tree.map(np.testing.assert_array_equal, unknown.plan, known.plan)
    assert not unknown.terms["guidance_T"].any() and known.terms["guidance_T"].all()
    labelled = Labelled(k=2, labels=2)
    plan = labelled(params_of(labelled), x_TD, label_T, E, None).plan
    np.testing.assert_array_equal(plan.expert_TK % 2, np.stack([label_T] * 2, axis=1))
    with pytest.raises(ValueError, match="^labelled: needs labels, and this batch has none$"):
        labelled.keys(NO_IDS, None)


def test_adaptive_weight_follows_the_load():
    adaptive = Adaptive(rate=0.5, low=0.1, high=0.5)
    router = TopK(losses=Losses(adaptive=adaptive))
    params = params_of(router)
    weights = []
    for load_E in ([4.0, 0], [4, 0], [2.0, 2], [2.4, 1.6]):  # violation 1, 1, 0, 0.2
        params = router.update(params, jnp.array(load_E), {})
        weights.append(float(router.loss_weight(params)))
    np.testing.assert_allclose(weights, np.exp([0.5, 1.0, 0.5, 0.5]), rtol=1e-6)


def test_fewer_assignments_than_experts_are_counted_as_they_are():
    # One assignment of four experts: mean 1/4, violation 1 / (1/4) - 1 = 3, so the weight rises;
    # none at all says nothing.
    adaptive = Adaptive(rate=0.5, low=0.1, high=0.5)
    np.testing.assert_allclose(adaptive.update(jnp.zeros(()), jnp.array([1.0, 0, 0, 0])), 0.5)
    np.testing.assert_allclose(adaptive.update(jnp.ones(()), jnp.zeros(4)), 1)
    # Two of four experts' mean 1/2: shortages (1/2 - 2) / (1/2) = -3 and (1/2 - 0) / (1/2) = 1.
    shortage_E = Proportional()(jnp.array([2.0, 0, 0, 0]))
    np.testing.assert_allclose(shortage_E, [-3, 1, 1, 1])
    np.testing.assert_array_equal(Proportional()(jnp.zeros(4)), jnp.zeros(4))
