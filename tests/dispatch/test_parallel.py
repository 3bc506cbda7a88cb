"""Expert parallelism on fake devices: values, gradients, loads and drops of the oracle."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.bench.cases import Shape, make_plan
from experiments.bench.layer import SKEWS
from moe.cost import compiled
from moe.dispatch.all_to_all import AllToAll
from moe.dispatch.auto import Auto
from moe.dispatch.oracle import Oracle
from moe.dispatch.overflow import Exact
from moe.dispatch.ragged import Ragged
from moe.dispatch.ragged_all_to_all import RaggedAllToAll, plan_traffic
from moe.experts.contract import Pool
from moe.experts.feed_forward import SwiGLU
from moe.plan import Choices, Slots
from tests.contracts.dispatch import mesh_of, served

T, D, E, K = 48, 8, 8, 3
EXPERTS = SwiGLU(6)
MESHES = {"expert 1": (1, 1), "expert 2": (1, 2), "data 2 expert 4": (2, 4), "expert 8": (1, 8)}
MECHANISMS = {
    "all_to_all": AllToAll(capacity_factor=8.0),
    "all_to_all exact": AllToAll(capacity_factor=0.5, overflow=Exact()),
    "ragged_all_to_all": RaggedAllToAll(capacity_factor=8.0),
    "ragged_all_to_all exact": RaggedAllToAll(capacity_factor=0.5, overflow=Exact()),
    "ragged": Ragged(),
    "auto": Auto(),
}


def plan_of(skew):
    plan = make_plan(Shape(T, D, 1, E, K), skew)
    unmade = jnp.arange(T)[:, None] % 7 + jnp.arange(K)[None] == 8
    return Choices(jnp.where(unmade, E, plan.expert_TK), jnp.where(unmade, 0, plan.gate_TK))


NAMES = [  # exact ones hold the program twice
    pytest.param(name, marks=pytest.mark.slow if name.endswith("exact") else ())
    for name in MECHANISMS
]


def inputs():
    params = EXPERTS.init(jax.random.key(0), E, D)
    return params, jax.random.normal(jax.random.key(1), (T, D))


@functools.partial(jax.jit, static_argnums=0)
def run(dispatch, params, x_TD, plan):
    def loss(params, x_TD, gate_TK):
        y_TD, stats = served(
            dispatch, plan.replace(gate_TK=gate_TK), x_TD, Pool(params, EXPERTS, E)
        )
        return jnp.sum(jnp.sin(y_TD)), (y_TD, stats)

    return jax.grad(loss, (0, 1, 2), has_aux=True)(params, x_TD, plan.gate_TK)


@pytest.mark.parametrize(
    "mesh",
    [pytest.param(m, marks=() if m.startswith("data") else pytest.mark.slow) for m in MESHES],
)
@pytest.mark.parametrize("name", NAMES)
def test_equals_the_oracle_on_every_mesh_under_every_load(name, mesh):
    params, x_TD = inputs()
    for skew in SKEWS:
        plan = plan_of(skew)
        want_grads, (want_TD, want) = run(Oracle(), params, x_TD, plan)
        with jax.set_mesh(mesh_of(*MESHES[mesh])):
            grads, (y_TD, stats) = run(MECHANISMS[name], params, x_TD, plan)
        np.testing.assert_allclose(y_TD, want_TD, rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(stats.load_E, want.load_E)
        assert float(stats.dropped_K.sum()) == 0
        for shard in stats.load_E.addressable_shards:  # bit-equal on all devices
            np.testing.assert_array_equal(shard.data, want.load_E)

        def close(a, b):
            np.testing.assert_allclose(a, b, atol=1e-5 * float(jnp.abs(b).max() + 1e-6))

        jax.tree.map(close, grads, want_grads)


@pytest.mark.parametrize("name", MECHANISMS)
def test_without_an_expert_axis_one_device_serves_all(name):
    params, x_TD = inputs()
    plan = plan_of("zipf")
    one, two = (run(d, params, x_TD, plan)[1][0] for d in (MECHANISMS[name], Oracle()))
    np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-5)


def test_a_pair_of_devices_drops_what_it_has_no_room_for():
    # Two devices with 4 experts and 24 tokens each; every token's 3 choices are on device 0.
    expert_TK = jnp.broadcast_to(jnp.arange(K, dtype=jnp.int32), (T, K))
    plan = Choices(expert_TK, jnp.full((T, K), 1 / K))
    params, x_TD = inputs()
    with jax.set_mesh(mesh_of(1, 2)):
        # Room for ceil(1 * 72 / 2) = 36 of the 72 rows: all first choices, half of the second.
        _, (y_TD, stats) = run(AllToAll(1.0), params, x_TD, plan)
    np.testing.assert_array_equal(stats.dropped_K, [0, 24, 48])
    served = np.arange(T) % 24 < 12
    two = plan.replace(gate_TK=plan.gate_TK.at[:, 2].set(0))
    one = plan.replace(gate_TK=two.gate_TK.at[:, 1].set(0))
    want = [run(Oracle(), params, x_TD, p)[1][0] for p in (two, one)]
    np.testing.assert_allclose(y_TD, jnp.where(served[:, None], *want), rtol=1e-5, atol=1e-5)


def lowered(dispatch, backward, platform="cpu"):
    params, x_TD = inputs()
    plan = plan_of("uniform")
    auto = (jax.sharding.AxisType.Auto,)
    mesh = jax.make_mesh((8,), ("expert",), axis_types=auto)
    place = functools.partial(jax.device_put, device=jax.NamedSharding(mesh, jax.P("expert")))
    params, x_TD, plan = jax.tree.map(place, (params, x_TD, plan))

    def forward(params, x_TD, plan):
        return served(dispatch, plan, x_TD, Pool(params, EXPERTS, E))[0]

    def both(params, x_TD, plan):
        return jax.grad(lambda *a: jnp.sum(jnp.sin(forward(*a, plan))), (0, 1))(params, x_TD)

    with jax.set_mesh(mesh):
        traced = jax.jit(both if backward else forward).trace(params, x_TD, plan)
        return traced.lower(lowering_platforms=(platform,))


# Each of 8 devices has 6 tokens of 8 numbers and 3 choices: 32 bytes a row. AllToAll(2.0) has room
# for ceil(2 * 18 / 8) = 5 rows for each pair, 40 in all.
ROWS, TOKENS = 40 * 32, 48 * 32


@pytest.mark.parametrize(
    ("dispatch", "backward", "want"),
    [
        # Rows out, the numbers of their experts, rows back; backward the rows both ways again.
        (AllToAll(2.0), False, {"all-to-all": (3, 2 * ROWS + 40 * 4)}),
        (AllToAll(2.0), True, {"all-to-all": (5, 4 * ROWS + 40 * 4)}),
        # Tokens, experts and gates are gathered, sums scattered; backward the other way round.
        (
            Ragged(),
            False,
            {"all-gather": (3, TOKENS + 2 * 48 * 3 * 4), "reduce-scatter": (1, TOKENS // 8)},
        ),
        (
            Ragged(),
            True,
            {"all-gather": (4, 2 * TOKENS + 2 * 48 * 3 * 4), "reduce-scatter": (2, TOKENS // 4)},
        ),
    ],
)
def test_the_compiled_program_holds_the_collectives_and_bytes_of_theory(dispatch, backward, want):
    found = compiled.collectives(lowered(dispatch, backward).compile().as_text())
    assert compiled.table(found) == want


@pytest.mark.parametrize(("backward", "want"), [(False, 2), (True, 4)])
def test_on_accelerators_runs_travel_by_ragged_all_to_all(backward, want):
    text = lowered(RaggedAllToAll(), backward, "tpu").as_text()
    assert len(re.findall(r"custom_call @ragged_all_to_all", text)) == want
    # One more collective tells the counts.
    assert "all_to_all(" not in text.replace("ragged_all_to_all", "")
    assert len(re.findall("stablehlo.all_gather", text)) == 1


def test_traffic_by_hand():
    # Two devices of two experts. Device 0 has 1, 2 rows for its own and 3, 0 for device 1's
    # experts; device 1 has 0, 1 and 2, 2. Each has room for 5.
    count_PE = jnp.array([[1, 2, 3, 0], [0, 1, 2, 2]])
    traffic = plan_traffic(count_PE, rows=5)
    np.testing.assert_array_equal(traffic.start_PP, [[0, 3], [0, 1]])
    np.testing.assert_array_equal(traffic.place_PP, [[0, 0], [3, 3]])
    np.testing.assert_array_equal(traffic.count_PP, [[3, 3], [1, 2]])  # 2 of 4: no room
    assert jax.tree.all(jax.tree.map(jnp.array_equal, traffic.back.back, traffic))


def test_a_device_drops_the_rows_of_the_last_devices():
    # Two devices with 24 tokens each; every token's 3 choices are on device 0, in the order 2, 1,
    # 0, so sorted by expert come all third choices, then the second, then the first.
    expert_TK = jnp.broadcast_to(jnp.arange(K - 1, -1, -1, dtype=jnp.int32), (T, K))
    plan = Choices(expert_TK, jnp.full((T, K), 1 / K))
    params, x_TD = inputs()
    with jax.set_mesh(mesh_of(1, 2)):
        # Room for 1.25 * 72 = 90 rows: 72 of device 0; of device 1 its third choices, 18 of 24.
        _, (y_TD, stats) = run(RaggedAllToAll(1.25), params, x_TD, plan)
    np.testing.assert_array_equal(stats.dropped_K, [24, 24, 6])
    some = jnp.arange(T)[:, None] < jnp.array([[24, 24, 42]])
    want_TD = run(Oracle(), params, x_TD, plan.replace(gate_TK=jnp.where(some, 1 / K, 0)))[1][0]
    np.testing.assert_allclose(y_TD, want_TD, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_is_near_float32_and_keeps_its_dtype(name):
    params, x_TD = inputs()
    plan = plan_of("zipf")
    want_TD = run(Oracle(), params, x_TD, plan)[1][0]
    with jax.set_mesh(mesh_of(2, 4)):
        y_TD, _ = run(MECHANISMS[name], params, x_TD.astype(jnp.bfloat16), plan)[1]
    assert y_TD.dtype == jnp.bfloat16
    scale = float(jnp.abs(want_TD).max())
    np.testing.assert_allclose(y_TD.astype(jnp.float32), want_TD, atol=2e-2 * scale)


def test_what_cannot_be_split_is_one_line():
    params, x_TD = inputs()
    plan = plan_of("uniform")
    with jax.set_mesh(mesh_of(1, 8)):
        with pytest.raises(ValueError, match="^model.moe.dispatch: tokens=44 must be divisible by"):
            cut = jax.tree.map(lambda a: a[:44], plan)
            jax.eval_shape(lambda: served(Ragged(), cut, x_TD[:44], Pool(params, EXPERTS, E)))
    slots = Slots(jnp.zeros((E, 2), jnp.int32), jnp.ones((E, 2)))
    with pytest.raises(
        ValueError, match="^model.moe.dispatch=AllToAll: serves token choice only, and"
    ):
        with jax.set_mesh(mesh_of(1, 8)):
            served(AllToAll(), slots, x_TD, Pool(params, EXPERTS, E))
