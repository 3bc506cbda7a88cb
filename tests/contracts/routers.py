"""What every router promises, measured: `CONTRACT` is run on all that is registered."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from moe import registry
from moe.data.counts import Corpus
from moe.dispatch.oracle import Oracle
from moe.experts.contract import Pool
from moe.experts.feed_forward import SwiGLU
from moe.experts.null import NullExperts
from moe.experts.shared import SharedExpert
from moe.fields import check_fields
from moe.model.layer import MoE
from moe.params import split_state
from moe.plan import Choices, Mix, Slots, Tokens

B, L, D, E, V = 4, 16, 8, 16, 40
T, LABELS = B * L, 5
RNG = jax.random.key(11)
EXPERTS = SwiGLU(6)
CORPUS = Corpus(np.arange(V)[::-1] ** 2, np.random.default_rng(0).integers(0, V, 4000))
# Experts 0 and 1 change places, 2 and 3, ...: a permutation within every group of two.
SWAPPED = np.arange(E) ^ 1


def registered():
    """Every registered router by name."""
    return {name: registry.lookup("router", name) for name in registry.names("router")}


@functools.cache
def inputs(seed=0):
    """x_BLD, id_BL and label_BL."""
    one, two, three = jax.random.split(jax.random.key(seed), 3)
    id_BL = jax.random.randint(two, (B, L), 0, V)
    return jax.random.normal(one, (B, L, D)), id_BL, jax.random.randint(three, (B, L), 0, LABELS)


@functools.cache
def compiled(router):
    """params, and a jitted function (params, x, ids, labels, rng) -> (y_BLD, routing)."""
    params = router.init(jax.random.key(1), D, E, V)
    pool = Pool(EXPERTS.init(jax.random.key(2), E, D), EXPERTS, E)

    @jax.jit
    def run(params, x_BLD, id_BL, label_BL, rng):
        x_TD, key_T = x_BLD.reshape(T, D), router.keys(id_BL, label_BL).reshape(T)
        routing = router(params, x_TD, key_T, E, rng)
        y_TD = Oracle()(routing.plan, x_TD, pool)[0]
        return y_TD.reshape(B, L, D), routing

    return params, run


def plan_of(router, rng=None):
    params, run = compiled(router)
    return run(params, *inputs(), rng)[1].plan


def weights(plan):
    """What each token gets of each expert, for Mix of its own input."""
    if isinstance(plan, Mix):
        return jnp.einsum("TEC,TEC->TE", plan.dispatch_TEC, plan.combine_TEC)
    return plan.weight_TE(T, E)


def shapes_dtypes_and_ranges(router):
    params, run = compiled(router)
    x_BLD, id_BL, label_BL = inputs()
    low = jax.eval_shape(run, params, x_BLD.astype(jnp.bfloat16), id_BL, label_BL, None)
    assert low[0].dtype == jnp.bfloat16
    for rng in (None, RNG):
        routing = run(params, x_BLD, id_BL, label_BL, rng)[1]
        plan = routing.plan
        if rng is None:  # the router computes in float32 whatever it reads
            assert jax.tree.map(lambda a: (a.shape, a.dtype), routing) == jax.tree.map(
                lambda a: (a.shape, a.dtype), low[1]
            )
        if isinstance(plan, Choices):
            assert plan.expert_TK.dtype == jnp.int32 and plan.gate_TK.dtype == jnp.float32
            assert plan.expert_TK.shape == plan.gate_TK.shape and plan.expert_TK.shape[0] == T
            assert 0 <= plan.expert_TK.min() and plan.expert_TK.max() <= E
        elif isinstance(plan, Slots):
            assert plan.token_EC.dtype == jnp.int32 and plan.gate_EC.dtype == jnp.float32
            assert plan.token_EC.shape == plan.gate_EC.shape and plan.token_EC.shape[0] == E
            assert 0 <= plan.token_EC.min() and plan.token_EC.max() <= T
        else:
            assert plan.dispatch_TEC.shape == plan.combine_TEC.shape
            assert plan.dispatch_TEC.shape[:2] == (T, E)
        share = np.asarray(weights(plan))
        assert np.isfinite(share).all() and (share >= 0).all() and share.any()
        for name, value in routing.terms.items():
            assert value.shape[0] == T and value.dtype == jnp.float32, name
        for name, value in routing.metrics.items():
            assert value.shape == () and value.dtype == jnp.float32, name


def no_token_is_twice_in_one_expert(router):
    for rng in (None, RNG):
        plan = plan_of(router, rng)
        if not isinstance(plan, Mix):
            assert np.asarray(plan.assigned_TE(T, E)).max() <= 1


def what_is_not_served_weighs_nothing(router):
    for rng in (None, RNG):
        plan = plan_of(router, rng)
        if isinstance(plan, Choices):
            assert np.all(np.asarray(plan.gate_TK)[np.asarray(plan.expert_TK) == E] == 0)
        elif isinstance(plan, Slots):
            assert np.all(np.asarray(plan.gate_EC)[np.asarray(plan.token_EC) == T] == 0)


def declared_choices(router):
    served = float(plan_of(router).assigned_TE(T, E).sum()) / T
    if router.fixed_choices:
        np.testing.assert_allclose(served, router.choices(E, T), rtol=1e-6)
    else:
        assert 0 < router.choices(E, T) <= E and 0 < served <= E


def evaluation_is_deterministic(router):
    params, run = compiled(router)
    one, two = (run(params, *inputs(), None) for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, one, two)


def gradient_reaches_every_learned_parameter(router):
    params, run = compiled(router)
    learned, fixed = split_state(params)
    assert bool(jax.tree.leaves(learned)) == router.learned
    if not router.learned:
        return

    @jax.jit
    def gradient(learned, rng):
        def loss(learned):  # the main loss alone: auxiliary losses do not count
            return jnp.sum(jnp.sin(run({**fixed, **learned}, *inputs(), rng)[0]))

        return jax.grad(loss)(learned)

    for name, leaf in gradient(learned, RNG).items():
        # Rounding alone gives about 1e-6 here; a renormalised gate at k = 1 gives just that.
        assert float(jnp.abs(leaf).max()) > 1e-3, name


def _first_half_stays(router, rng):
    params, run = compiled(router)
    first = jnp.arange(L) < L // 2
    one, other = inputs(), inputs(seed=5)
    x_BLD = jnp.where(first[None, :, None], one[0], other[0])
    id_BL, label_BL = (
        jnp.where(first[None], a, b) for a, b in zip(one[1:], other[1:], strict=True)
    )
    before, after = run(params, *one, rng)[0], run(params, x_BLD, id_BL, label_BL, rng)[0]
    return bool(jnp.allclose(before[:, : L // 2], after[:, : L // 2], atol=1e-6))


def declared_causal(router):
    assert _first_half_stays(router, None) == router.causal


def declared_causal_in_training(router):
    assert _first_half_stays(router, RNG) == router.causal_in_training


def declared_batch_invariance(router):
    params, run = compiled(router)
    mixed = [a.at[1:].set(b[1:]) for a, b in zip(inputs(), inputs(seed=6), strict=True)]
    before, after = run(params, *inputs(), None)[0], run(params, *mixed, None)[0]
    assert bool(jnp.allclose(before[0], after[0], atol=1e-6)) == router.batch_invariant


def declared_needs(router):
    params, run = compiled(router)
    x_BLD, id_BL, label_BL = inputs()
    _, other_id, other_label = inputs(seed=7)

    def differs(*changed):
        found = [run(params, x_BLD, *ids, RNG)[1] for ids in ((id_BL, label_BL), changed)]
        pairs = zip(*(jax.tree.leaves((r.plan, r.terms)) for r in found), strict=True)
        return any(bool(jnp.any(a != b)) for a, b in pairs)

    assert differs(other_id, label_BL) == router.needs_ids
    assert differs(id_BL, other_label) == router.needs_labels


def permuting_experts_permutes_the_plan(router):
    params, run = compiled(router)
    if not params or router.needs_labels:
        return  # nothing names an expert, or the label does

    def permuted(path, leaf):
        name = path[-1].key
        suffix = name.rpartition("_")[2]
        if name.startswith("expert_"):
            return jnp.asarray(SWAPPED, leaf.dtype)[leaf]
        return jnp.take(leaf, SWAPPED, axis=suffix.index("E")) if "E" in suffix else leaf

    swapped = jax.tree_util.tree_map_with_path(permuted, params)
    one, two = (weights(run(p, *inputs(), None)[1].plan) for p in (params, swapped))
    np.testing.assert_allclose(one[:, SWAPPED], two, rtol=1e-5, atol=1e-6)


def fit_and_update_keep_the_parameters_form(router):
    params, run = compiled(router)
    routing = run(params, *inputs(), RNG)[1]
    load_E = routing.plan.assigned_TE(T, E).sum(axis=0)
    fitted = router.fit(params, E, CORPUS, seed=3)
    updated = router.update(fitted, load_E, routing.stats)

    def form(tree):
        return jax.tree.map(lambda a: (a.shape, a.dtype), tree)

    assert form(params) == form(fitted) == form(updated)
    learned = [split_state(p)[0] for p in (params, updated)]
    jax.tree.map(np.testing.assert_array_equal, *learned)  # gradients alone move these


def losses_are_formed_from_sums(router):
    terms = compiled(router)[1](compiled(router)[0], *inputs(), RNG)[1].terms
    sums = jax.tree.map(lambda a: a.sum(axis=0), terms)
    losses, metrics = router.losses(sums, T)
    doubled, _ = router.losses(jax.tree.map(lambda a: 2 * a, sums), 2 * T)
    for name, value in {**losses, **metrics}.items():
        assert value.shape == () and np.isfinite(value) and value >= 0, name
    for name in losses:  # a text that is read twice has the same loss
        np.testing.assert_allclose(doubled[name], losses[name], rtol=1e-5)


def works_with_shared_and_null_experts(router):
    null = NullExperts(zero=1, copy=2, constant=1)
    layer = MoE(E - null.count, router, Oracle(), EXPERTS, SharedExpert(SwiGLU(4)), null)
    params = layer.init(jax.random.key(3), D, V)
    inside = compiled(router)[0]
    (x_BLD, id_BL, label_BL), x_TD = inputs(), inputs()[0].reshape(T, D)

    @jax.jit
    def both(params):
        y_BLD, aux = layer(params, x_BLD, Tokens(id_BL, label_BL))
        routing = router(inside, x_TD, router.keys(id_BL, label_BL).reshape(T), E, None)
        plan = routing.plan

        def experts(x_ECD):  # all experts in the router's numbering
            own = E - null.count
            computed = EXPERTS(params["experts"], x_ECD[:own])
            return jnp.concatenate([computed, null(params["null"], x_ECD[own:])])

        if isinstance(plan, Mix):
            x_ECD = jnp.einsum("TEC,TD->ECD", plan.dispatch_TEC, x_TD)
            want_TD = jnp.einsum("TEC,ECD->TD", plan.combine_TEC, experts(x_ECD))
        else:
            y_ETD = experts(jnp.broadcast_to(x_TD, (E, T, D)))
            want_TD = jnp.einsum("TE,ETD->TD", plan.weight_TE(T, E), y_ETD)
        want_BLD = want_TD.reshape(B, L, D) + layer.shared(params["shared"], x_BLD)
        return y_BLD, want_BLD, aux.counts.load_E, routing.counts(T, E)[0].sum(axis=0)

    y_BLD, want_BLD, load_E, want_E = both({**params, "router": inside})
    np.testing.assert_allclose(y_BLD, want_BLD, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(load_E, want_E, rtol=1e-6)


def impossible_fields_are_one_line(router):
    check_fields(router, "model.moe.router")
    router.check("model.moe.router", E)
    for field, value in (("k", 0), ("k", E + 1), ("init_scale", -1.0), ("capacity_factor", -0.5)):
        if field in {f.name for f in dataclasses.fields(router)}:
            changed = dataclasses.replace(router, **{field: value})
            try:
                check_fields(changed, "model.moe.router")
                changed.check("model.moe.router", E)
            except ValueError as error:
                assert str(error).startswith(f"model.moe.router.{field}={value}: ")
                assert "\n" not in str(error)
            else:
                raise AssertionError(f"{field}={value} is accepted")


CONTRACT = (
    shapes_dtypes_and_ranges,
    no_token_is_twice_in_one_expert,
    what_is_not_served_weighs_nothing,
    declared_choices,
    evaluation_is_deterministic,
    gradient_reaches_every_learned_parameter,
    declared_causal,
    declared_causal_in_training,
    declared_batch_invariance,
    declared_needs,
    permuting_experts_permutes_the_plan,
    fit_and_update_keep_the_parameters_form,
    losses_are_formed_from_sums,
    works_with_shared_and_null_experts,
    impossible_fields_are_one_line,
)
