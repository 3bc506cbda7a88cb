"""The router contract: every registered router is measured against what it declares."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from moe import registry
from moe.dispatch.oracle import Oracle
from moe.experts import SwiGLU
from moe.routers.hash import BALANCED, Hash
from moe.routers.top_k import TopK
from moe.routing import Choices, Mix, Slots

T, D, E, V = 64, 16, 8, 40
ROUTERS = {name: registry.lookup("router", name) for name in registry.names("router")}
ROUTERS["top_k k=1"] = TopK(k=1)
ROUTERS["hash k=3"] = Hash(k=3)
EXPERTS = SwiGLU(12)


@pytest.fixture(params=ROUTERS, ids=str)
def router(request):
    return ROUTERS[request.param]


def inputs(seed=0):
    keys = jax.random.split(jax.random.key(seed), 2)
    return jax.random.normal(keys[0], (T, D)), jax.random.randint(keys[1], (T,), 0, V)


def route(router, x_TD, id_T, rng=None, seed=1):
    params = router.init(jax.random.key(seed), D, E, V)
    return router(params, x_TD, id_T, E, rng)


def weight_TE(plan):
    if isinstance(plan, Mix):
        return jnp.einsum("TEC,TEC->TE", plan.dispatch_TEC, plan.combine_TEC)
    return plan.weight_TE(T, E)


def outputs(router, x_TD, id_T):
    plan = route(router, x_TD, id_T).plan
    params = EXPERTS.init(jax.random.key(2), E, D)
    return Oracle()(plan, x_TD, EXPERTS, params, E)[0]


def test_shapes_dtypes_and_ranges(router):
    x_TD, id_T = inputs()
    for dtype in (jnp.float32, jnp.bfloat16):
        routing = route(router, x_TD.astype(dtype), id_T)
        plan = routing.plan
        if isinstance(plan, Choices):
            assert plan.expert_TK.dtype == jnp.int32 and plan.gate_TK.dtype == jnp.float32
            assert plan.expert_TK.shape == plan.gate_TK.shape and plan.expert_TK.shape[0] == T
            assert 0 <= plan.expert_TK.min() and plan.expert_TK.max() < E
        elif isinstance(plan, Slots):
            assert plan.token_EC.shape == plan.gate_EC.shape and plan.token_EC.shape[0] == E
            assert np.all(np.asarray(plan.gate_EC)[np.asarray(plan.token_EC) == T] == 0)
        else:
            assert plan.dispatch_TEC.shape == plan.combine_TEC.shape
        weights = np.asarray(weight_TE(plan))
        assert np.isfinite(weights).all() and (weights >= 0).all()
        for name, value in {**routing.losses, **routing.metrics}.items():
            assert value.shape == () and value.dtype == jnp.float32, name


def test_no_token_is_twice_in_one_expert(router):
    plan = route(router, *inputs()).plan
    if not isinstance(plan, Mix):
        assert np.asarray(plan.assigned_TE(T, E)).max() == 1


def test_declared_choices_are_measured(router):
    assigned_TE = np.asarray(route(router, *inputs()).plan.assigned_TE(T, E))
    np.testing.assert_allclose(assigned_TE.sum() / T, router.choices(E), rtol=1e-6)


def test_evaluation_is_deterministic(router):
    x_TD, id_T = inputs()
    one, two = (route(router, x_TD, id_T) for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, one, two)


def test_gradient_reaches_every_learned_parameter(router):
    x_TD, id_T = inputs()
    params = router.init(jax.random.key(1), D, E, V)
    learned = {name: leaf for name, leaf in params.items() if name != "state"}
    assert bool(jax.tree.leaves(learned)) == router.learned
    if not router.learned:
        return
    experts = EXPERTS.init(jax.random.key(2), E, D)

    def loss(learned):
        plan = router({**params, **learned}, x_TD, id_T, E, None).plan
        y_TD = Oracle()(plan, x_TD, EXPERTS, experts, E)[0]
        return jnp.sum(jnp.sin(y_TD))  # the main loss alone: auxiliary losses do not count

    for leaf in jax.tree.leaves(jax.grad(loss)(learned)):
        # Rounding alone gives about 1e-6 here; a renormalised gate at k = 1 gives just that.
        assert float(jnp.abs(leaf).max()) > 1e-3


def test_declared_causal_is_measured(router):
    x_TD, id_T = inputs()
    later_x, later_id = inputs(seed=5)
    half = T // 2
    changed = jnp.concatenate([x_TD[:half], later_x[half:]])
    changed_id = jnp.concatenate([id_T[:half], later_id[half:]])
    before, after = outputs(router, x_TD, id_T), outputs(router, changed, changed_id)
    assert bool(jnp.allclose(before[:half], after[:half], atol=1e-6)) == router.causal


def test_declared_batch_invariance_is_measured(router):
    x_TD, id_T = inputs()
    other_x, other_id = inputs(seed=6)
    kept = jnp.arange(T) % 2 == 0
    changed = jnp.where(kept[:, None], x_TD, other_x)
    before = outputs(router, x_TD, id_T)
    after = outputs(router, changed, jnp.where(kept, id_T, other_id))
    same = bool(jnp.allclose(before[kept], after[kept], atol=1e-6))
    assert same == router.batch_invariant


def test_declared_need_of_ids_is_measured(router):
    x_TD, id_T = inputs()
    _, other_id = inputs(seed=7)
    one, two = (
        weight_TE(route(router, x_TD, id_T).plan),
        weight_TE(route(router, x_TD, other_id).plan),
    )
    assert bool(jnp.any(one != two)) == router.needs_ids


def test_fit_and_update_keep_the_parameters_form(router):
    params = router.init(jax.random.key(1), D, E, V)
    fitted = router.fit(params, E, np.arange(V), seed=3)
    updated = router.update(fitted, jnp.arange(E, dtype=jnp.float32))
    for other in (fitted, updated):
        assert jax.tree.map(lambda a: (a.shape, a.dtype), params) == jax.tree.map(
            lambda a: (a.shape, a.dtype), other
        )


def test_top_k_of_a_known_distribution():
    # One-hot inputs pick a row of w: logits ln(1, 2, 5) have probabilities 1/8, 2/8, 5/8.
    router = TopK(k=2, load_balance=0.5, z_loss=0.25)
    params = {"w_DE": jnp.log(jnp.array([[1.0, 2.0, 5.0], [5.0, 2.0, 1.0]]))}
    routing = router(params, jnp.eye(2), jnp.zeros(2, jnp.int32), 3, None)
    np.testing.assert_array_equal(routing.plan.expert_TK, [[2, 1], [0, 1]])
    # Renormalised over the chosen two: 5/7 and 2/7.
    np.testing.assert_allclose(routing.plan.gate_TK, [[5 / 7, 2 / 7]] * 2, rtol=1e-6)
    # f = (1, 2, 1)/4, P = (3/8, 2/8, 3/8): 3 * (3/32 + 4/32 + 3/32) = 30/32.
    np.testing.assert_allclose(routing.metrics["load_balance"], 30 / 32, rtol=1e-6)
    np.testing.assert_allclose(routing.losses["load_balance"], 15 / 32, rtol=1e-6)
    # logsumexp of ln(1, 2, 5) is ln 8 for both tokens.
    np.testing.assert_allclose(routing.losses["z_loss"], 0.25 * np.log(8) ** 2, rtol=1e-6)


def test_top_1_keeps_its_probability_as_gate():
    router = TopK(k=1, renormalize=True)
    params = {"w_DE": jnp.log(jnp.array([[1.0, 2.0, 5.0]]))}
    plan = router(params, jnp.ones((1, 1)), jnp.zeros(1, jnp.int32), 3, None).plan
    np.testing.assert_allclose(plan.gate_TK, [[5 / 8]], rtol=1e-6)


def test_ties_go_to_the_lowest_index():
    plan = TopK(k=3)({"w_DE": jnp.zeros((D, E))}, *inputs(), E, None).plan
    np.testing.assert_array_equal(plan.expert_TK, [[0, 1, 2]] * T)


def test_hash_ignores_the_hidden_state_and_training():
    x_TD, id_T = inputs()
    other_x, _ = inputs(seed=8)
    for router in (Hash(k=2), BALANCED):
        one, two = route(router, x_TD, id_T).plan, route(router, other_x, id_T).plan
        jax.tree.map(np.testing.assert_array_equal, one, two)


def test_balanced_table_is_even_over_the_corpus_and_random_is_not():
    generator = np.random.default_rng(0)
    count_V = generator.zipf(1.5, size=2000).clip(max=2000)  # no id is above 1/8 of all
    assert count_V.max() * 8 < count_V.sum()

    def violation(router):
        params = router.init(jax.random.key(0), D, E, 2000)
        expert_V = np.asarray(router.fit(params, E, count_V, 0)["state"]["expert_VK"])[:, 0]
        load_E = np.bincount(expert_V, weights=count_V, minlength=E)
        return load_E.max() / load_E.mean() - 1

    assert violation(BALANCED) < 0.001
    assert violation(Hash()) > 0.02


def test_balanced_table_by_hand():
    # Counts 5, 4, 3, 2 over two experts: 5 -> a, 4 -> b, 3 -> b (4 < 5), 2 -> a (5 < 7): 7 and 7.
    params = {"state": {"expert_VK": jnp.zeros((4, 1), jnp.int32)}}
    table = np.asarray(BALANCED.fit(params, 2, np.array([3, 5, 2, 4]), 0)["state"]["expert_VK"])[
        :, 0
    ]
    assert table[1] == table[2] != table[3] == table[0]


def test_tables_differ_between_seeds_and_repeat_for_one():
    params = BALANCED.init(jax.random.key(0), D, E, V)
    tables = [BALANCED.fit(params, E, np.ones(V), seed)["state"]["expert_VK"] for seed in (0, 0, 1)]
    np.testing.assert_array_equal(tables[0], tables[1])
    assert np.any(tables[0] != tables[2])


def test_wrong_counts_are_refused():
    params = BALANCED.init(jax.random.key(0), D, E, V)
    with pytest.raises(ValueError, match="count_V has 3 entries: the table has 40 ids"):
        BALANCED.fit(params, E, np.ones(3), 0)


@pytest.mark.parametrize("k", [0, 9])
def test_impossible_k_names_the_field(router, k):
    import dataclasses

    if hasattr(router, "k"):
        with pytest.raises(ValueError, match=rf"^model.moe.router.k={k}: must be in \[1, num_ex"):
            dataclasses.replace(router, k=k).check("model.moe.router", E)


def test_negative_loss_weight_names_the_field():
    with pytest.raises(ValueError, match="^r.z_loss=-1.0: must be a number >= 0"):
        TopK(z_loss=-1.0).check("r", E)
