"""The dispatch contract: every dispatcher equals the dense oracle, values and gradients."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.bench.cases import Shape, make_plan
from experiments.bench.layer import SKEWS
from moe import registry
from moe.dispatch.einsum import Einsum, choice_masks
from moe.dispatch.gather import Gather
from moe.dispatch.limited import Parallel
from moe.dispatch.oracle import Oracle
from moe.dispatch.overflow import Exact
from moe.dispatch.ragged import Ragged
from moe.experts.contract import Pool
from moe.experts.feed_forward import ReLU, SwiGLU
from moe.fields import check_fields
from moe.kernels.blocked import Blocked
from moe.order import sort_choices
from moe.plan import Choices, Mix, Slots, capacity

T, D, E, C = 48, 12, 6, 5
EXPERTS = SwiGLU(9)


def dispatchers():
    """Every registered dispatcher of one device, in a form that drops nothing at this size."""
    found = {}
    for name in registry.names("dispatch"):
        dispatch = registry.lookup("dispatch", name)
        if isinstance(dispatch, Parallel):
            continue  # on one device another dispatcher's work: tests/dispatch/test_parallel.py
        if hasattr(dispatch, "capacity_factor"):
            # C = T slots per expert for K = 1, so that even one expert can take everything.
            dispatch = dataclasses.replace(dispatch, capacity_factor=float(E))
        found[name] = dispatch
    found["gather exact"] = Gather(0.5, overflow=Exact())
    found["ragged block=7"] = Ragged(Blocked(7, 3))
    found["ragged block=1000"] = Ragged(Blocked(1000))
    return found


DISPATCHERS = dispatchers()
NAMES = [
    pytest.param(name, marks=pytest.mark.slow if name == "ragged block=1000" else ())
    for name in DISPATCHERS
]


def choices(K, skew):
    return make_plan(Shape(T, D, 1, E, K), skew)


def some_unmade():
    """Two of three tokens make their second choice, one makes none."""
    plan = choices(3, "zipf")
    made = jnp.stack([jnp.arange(T) % 7 > 0, jnp.arange(T) % 3 > 0, jnp.arange(T) % 5 > 2], axis=1)
    return Choices(jnp.where(made, plan.expert_TK, E), jnp.where(made, plan.gate_TK, 0))


def slots():
    token_EC = jax.random.randint(jax.random.key(5), (E, C), 0, T).at[2, 3:].set(T)
    gate_EC = jax.random.uniform(jax.random.key(6), (E, C))
    return Slots(token_EC, jnp.where(token_EC == T, 0, gate_EC))


def mixture():
    keys = jax.random.split(jax.random.key(7), 2)
    return Mix(*(jax.random.normal(key, (T, E, C)) / 4 for key in keys))


PLANS = {f"{skew}, K={K}": (choices, K, skew) for skew in SKEWS for K in (1, 3)}
PLANS |= {"some choices unmade": (some_unmade,), "slots": (slots,), "mix": (mixture,)}


@functools.partial(jax.jit, static_argnums=0)
def run(dispatch, x_TD, params, plan):
    """((gradients of x, params and plan), (y_TD, stats)); compiled once for each kind of plan."""

    def loss(x_TD, params, plan):
        y_TD, stats = dispatch(plan, x_TD, Pool(params, EXPERTS, E))
        return jnp.sum(jnp.sin(y_TD)), (y_TD, stats)

    return jax.grad(loss, (0, 1, 2), has_aux=True, allow_int=True)(x_TD, params, plan)


@functools.partial(jax.jit, static_argnums=0)
def serve(dispatch, plan, x_TD, pool):
    return dispatch(plan, x_TD, pool)


@pytest.fixture(scope="module")
def inputs():
    params = EXPERTS.init(jax.random.key(0), E, D)
    return jax.random.normal(jax.random.key(1), (T, D)), params


def assert_close(got, want):
    """To 1e-5 of the largest entry of each array; integers have no gradient."""
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        if a.dtype != jax.dtypes.float0:
            np.testing.assert_allclose(a, b, atol=1e-5 * float(jnp.abs(b).max() + 1e-6))


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("name", NAMES)
def test_values_and_gradients_equal_the_oracle(name, plan, inputs):
    make, *arguments = PLANS[plan]
    plan = make(*arguments)
    grads, (y_TD, stats) = run(DISPATCHERS[name], *inputs, plan)
    want_grads, (want_TD, want_stats) = run(Oracle(), *inputs, plan)
    np.testing.assert_array_equal(stats.load_E, want_stats.load_E)
    assert float(stats.dropped_K.sum()) == 0
    assert_close((y_TD, grads), (want_TD, want_grads))


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_is_near_float32_and_keeps_its_dtype(name):
    experts, plan = ReLU(32), choices(2, "zipf")
    params = experts.init(jax.random.key(0), E, D)
    x_TD = jax.random.normal(jax.random.key(1), (T, D))
    want_TD, _ = serve(Oracle(), plan, x_TD, Pool(params, experts, E))
    y_TD, _ = serve(DISPATCHERS[name], plan, x_TD.astype(jnp.bfloat16), Pool(params, experts, E))
    assert y_TD.dtype == jnp.bfloat16
    scale = float(jnp.abs(want_TD).max())
    np.testing.assert_allclose(y_TD.astype(jnp.float32), want_TD, atol=2e-2 * scale)


@pytest.mark.parametrize("name", NAMES)
def test_dropless_outputs_do_not_depend_on_neighbours(name):
    experts, plan = SwiGLU(9), choices(2, "uniform")
    params = experts.init(jax.random.key(0), E, D)
    x_TD = jax.random.normal(jax.random.key(1), (T, D))
    other_TD = jnp.where(jnp.arange(T)[:, None] < 10, x_TD, -x_TD)
    run = jax.jit(lambda x_TD: DISPATCHERS[name](plan, x_TD, Pool(params, experts, E))[0])
    np.testing.assert_array_equal(run(x_TD)[:10], run(other_TD)[:10])


def test_capacity_drops_later_choices_first_then_later_tokens():
    # Two experts with one slot each. First choices: tokens 0 and 1 both want expert 0, token 0
    # gets it. Second choices: both want expert 1, token 0 gets it again; token 1 gets nothing.
    plan = Choices(jnp.array([[0, 1], [0, 1]]), jnp.array([[0.7, 0.3], [0.6, 0.4]]))
    masks, dropped_TK = choice_masks(plan, E=2, C=1)
    np.testing.assert_array_equal(masks.dispatch_TEC[:, :, 0], [[1, 1], [0, 0]])
    np.testing.assert_allclose(masks.combine_TEC[:, :, 0], [[0.7, 0.3], [0, 0]])
    np.testing.assert_array_equal(dropped_TK, [[0, 0], [1, 1]])
    # Choice-major: token 1's first choice comes before token 0's second.
    plan = Choices(jnp.array([[0, 1], [1, 0]]), jnp.array([[0.7, 0.3], [0.6, 0.4]]))
    masks, dropped_TK = choice_masks(plan, E=2, C=1)
    np.testing.assert_array_equal(masks.dispatch_TEC[:, :, 0], [[1, 0], [0, 1]])
    np.testing.assert_array_equal(dropped_TK, [[0, 1], [0, 1]])


@pytest.mark.parametrize("plan", [p for p in PLANS if p not in ("slots", "mix")])
@pytest.mark.parametrize("factor", [0.5, 1.0])
def test_gather_fills_and_drops_the_slots_of_einsum(plan, factor, inputs):
    make, *arguments = PLANS[plan]
    plan = make(*arguments)
    mine = run(Gather(factor), *inputs, plan)
    theirs = run(Einsum(factor, group_size=0), *inputs, plan)
    jax.tree.map(np.testing.assert_array_equal, mine[1][1], theirs[1][1])
    assert_close((mine[0], mine[1][0]), (theirs[0], theirs[1][0]))


def test_capacity_counts_assignments():
    assert capacity(1.25, T=100, K=2, E=8) == 32  # ceil(1.25 * 200 / 8 = 31.25)
    assert capacity(1.0, T=64, K=2, E=8) == 16  # exactly 16, not 17 by rounding
    assert capacity(9.0, T=10, K=1, E=2) == 10  # no more slots than tokens
    assert capacity(1e-12, T=10, K=1, E=2) == 1  # ceil of what is above 0


def test_einsum_reports_drops_and_slots():
    plan = choices(1, "one")
    experts = SwiGLU(4)
    params = experts.init(jax.random.key(0), E, D)
    x_TD = jnp.ones((T, D))
    y_TD, stats = serve(Einsum(capacity_factor=1.0), plan, x_TD, Pool(params, experts, E))
    # 48 tokens want expert 0, which has ceil(48 / 6) = 8 slots; 8 of 48 slots are used.
    np.testing.assert_array_equal(stats.dropped_K, [40])
    np.testing.assert_allclose(stats.slots_used, 8 / 48)
    assert bool(jnp.all(y_TD[8:] == 0)) and bool(jnp.all(jnp.any(y_TD[:8] != 0, axis=1)))


def test_ragged_reports_how_full_its_blocks_are():
    plan = choices(1, "one")
    experts = SwiGLU(4)
    params = experts.init(jax.random.key(0), E, D)
    _, stats = serve(Ragged(Blocked(20, 6)), plan, jnp.ones((T, D)), Pool(params, experts, E))
    # 48 rows: two blocks of 20 and two of 6.
    np.testing.assert_allclose(stats.slots_used, 48 / 52)


def test_sort_is_by_expert_then_token_then_choice():
    plan = Choices(jnp.array([[1, 0], [0, 1]]), jnp.ones((2, 2)))
    order = sort_choices(plan, E=3)
    np.testing.assert_array_equal(order.token_R, [0, 1, 0, 1])
    np.testing.assert_array_equal(order.rank_R, [1, 0, 0, 1])
    np.testing.assert_array_equal(order.row_TK, [[2, 0], [1, 3]])
    np.testing.assert_array_equal(order.size_E, [2, 2, 0])


def test_a_key_too_large_to_sort_is_refused():
    plan = Choices(jnp.zeros((2**16, 1), jnp.int32), jnp.ones((2**16, 1)))
    with pytest.raises(ValueError, match="must be below 2\\^31"):
        jax.eval_shape(lambda: sort_choices(plan, E=2**15))


def test_groups_and_overhead():
    assert Einsum(group_size=16).groups(48) == 3
    assert Einsum(group_size=64).groups(48) == 1 == Einsum(group_size=0).groups(48)
    # Two products of T x E x C x D, 2 FLOPs each: 4 * 6 * C * 12 per token, C = ceil(16/6) = 3.
    assert Einsum(1.0, 16).overhead(48, K=1, E=6, D=12) == 4 * 6 * 3 * 12
    assert Ragged().overhead(48, 1, 6, 12) == 0
    assert Oracle().overhead(48, 1, 6, 12) == 2 * 6 * 12


@pytest.mark.parametrize(
    ("dispatch", "line"),
    [
        (Einsum(capacity_factor=0.0), "d.capacity_factor=0.0: must be a number > 0"),
        (Einsum(group_size=-1), "d.group_size=-1: must divide the 48 tokens of a batch, or be 0"),
        (Einsum(group_size=36), "d.group_size=36: must divide the 48 tokens of a batch, or be 0"),
        (Ragged(Blocked(0)), "d.kernel.block=0: must be >= 1"),
        (Ragged(Blocked(8, 9)), r"d.kernel.tail=9: must be in \[1, block=8\]"),
        (
            Gather(overflow=Exact(), group_size=16),
            "d.group_size=16: must be 0, one group, with overflow=exact",
        ),
        (Gather(capacity_factor=-1.0), "d.capacity_factor=-1.0: must be a number > 0"),
    ],
)
def test_impossible_fields_are_named(dispatch, line):
    with pytest.raises(ValueError, match=f"^{line}$"):
        check_fields(dispatch, "d")
        dispatch.check("d", T)
