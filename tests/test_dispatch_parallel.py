"""Expert parallelism on fake devices: values, gradients, loads and drops of the oracle."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from moe.dispatch.all_to_all import AllToAll
from moe.dispatch.oracle import Oracle
from moe.dispatch.parallel import dispatch_here, serve
from moe.dispatch.ragged import Ragged
from moe.dispatch.ring import Ring
from moe.experts import SwiGLU
from moe.routing import Choices, Slots

T, D, E, K = 48, 8, 8, 3
EXPERTS = SwiGLU(6)
MESHES = {"expert 1": (1, 1), "expert 2": (1, 2), "data 2 expert 4": (2, 4), "expert 8": (1, 8)}
MECHANISMS = {"ring": Ring(), "all_to_all": AllToAll(capacity_factor=8.0), "ragged": Ragged()}


def mesh_of(shape):
    count = shape[0] * shape[1]
    auto = (jax.sharding.AxisType.Auto,) * 2
    devices = jax.devices()[:count]
    return jax.make_mesh(shape, ("data", "expert"), axis_types=auto, devices=devices)


def plan_of(skew):
    bias_E = {
        "uniform": jnp.zeros(E),
        "zipf": -2 * jnp.log1p(jnp.arange(E)),
        "one takes all": 100.0 * (jnp.arange(E) == 2),
        "some empty": -100.0 * (jnp.arange(E) % 2),
    }[skew]
    logits_TE = jax.random.normal(jax.random.key(K), (T, E)) + bias_E[None]
    gate_TK, expert_TK = jax.lax.top_k(jax.nn.softmax(logits_TE), K)
    unmade = jnp.arange(T)[:, None] % 7 + jnp.arange(K)[None] == 8
    return Choices(jnp.where(unmade, E, expert_TK), jnp.where(unmade, 0, gate_TK))


def inputs():
    params = EXPERTS.init(jax.random.key(0), E, D)
    return params, jax.random.normal(jax.random.key(1), (T, D))


def served(dispatch, params, x_TD, plan, num_experts=E):
    """What a layer does with one group of tokens, on the mesh in use or without one."""

    def function(params, plan, x_TD):
        return dispatch_here(dispatch, plan, x_TD, EXPERTS, params, num_experts)

    return serve(function, params, plan, x_TD, 1, dispatch.tokenwise)


@functools.partial(jax.jit, static_argnums=0)
def run(dispatch, params, x_TD, plan):
    def loss(params, x_TD, gate_TK):
        y_TD, stats = served(dispatch, params, x_TD, plan.replace(gate_TK=gate_TK))
        return jnp.sum(jnp.sin(y_TD)), (y_TD, stats)

    return jax.grad(loss, (0, 1, 2), has_aux=True)(params, x_TD, plan.gate_TK)


@pytest.mark.parametrize(
    "mesh",
    [pytest.param(m, marks=() if m.startswith("data") else pytest.mark.slow) for m in MESHES],
)
@pytest.mark.parametrize("name", MECHANISMS)
def test_equals_the_oracle_on_every_mesh_under_every_load(name, mesh):
    params, x_TD = inputs()
    for skew in ("uniform", "zipf", "one takes all", "some empty"):
        plan = plan_of(skew)
        want_grads, (want_TD, want) = run(Oracle(), params, x_TD, plan)
        with jax.set_mesh(mesh_of(MESHES[mesh])):
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
    with jax.set_mesh(mesh_of((1, 2))):
        # Room for ceil(1 * 72 / 2) = 36 of the 72 rows: all first choices, half of the second.
        _, (y_TD, stats) = run(AllToAll(1.0), params, x_TD, plan)
    np.testing.assert_array_equal(stats.dropped_K, [0, 24, 48])
    served = np.arange(T) % 24 < 12
    two = plan.replace(gate_TK=plan.gate_TK.at[:, 2].set(0))
    one = plan.replace(gate_TK=two.gate_TK.at[:, 1].set(0))
    want = [run(Oracle(), params, x_TD, p)[1][0] for p in (two, one)]
    np.testing.assert_allclose(y_TD, jnp.where(served[:, None], *want), rtol=1e-5, atol=1e-5)


def collectives(text):
    """Operation -> how often a compiled program holds it."""
    kinds = "all-to-all|all-gather|all-reduce|reduce-scatter|collective-permute"
    found = [re.search(rf"\s({kinds})(?:-start)?\(", line) for line in text.splitlines()]
    names = [match[1] for match in found if match]
    return {kind: names.count(kind) for kind in set(names)}


def compiled(dispatch, backward):
    params, x_TD = inputs()
    plan = plan_of("uniform")
    auto = (jax.sharding.AxisType.Auto,)
    mesh = jax.make_mesh((8,), ("expert",), axis_types=auto)
    place = functools.partial(jax.device_put, device=jax.NamedSharding(mesh, jax.P("expert")))
    params, x_TD, plan = jax.tree.map(place, (params, x_TD, plan))

    def forward(params, x_TD, plan):
        return served(dispatch, params, x_TD, plan)[0]

    def both(params, x_TD, plan):
        return jax.grad(lambda *a: jnp.sum(jnp.sin(forward(*a, plan))), (0, 1))(params, x_TD)

    with jax.set_mesh(mesh):
        return jax.jit(both if backward else forward).lower(params, x_TD, plan).compile().as_text()


@pytest.mark.parametrize(
    ("dispatch", "backward", "want"),
    [
        # Rows out, the numbers of their experts, rows back; backward the rows both ways again.
        (AllToAll(), False, {"all-to-all": 3}),
        (AllToAll(), True, {"all-to-all": 5}),
        # Tokens, experts and gates are gathered, sums scattered; backward the other way round.
        (Ring(), False, {"all-gather": 3, "reduce-scatter": 1}),
        (Ring(), True, {"all-gather": 4, "reduce-scatter": 2}),
    ],
)
def test_the_compiled_program_holds_the_collectives_of_theory(dispatch, backward, want):
    assert collectives(compiled(dispatch, backward)) == want


def test_what_cannot_be_split_is_one_line():
    params, x_TD = inputs()
    plan = plan_of("uniform")
    with jax.set_mesh(mesh_of((1, 8))):
        with pytest.raises(ValueError, match="^model.moe.dispatch: tokens=44 must be divisible by"):
            cut = jax.tree.map(lambda a: a[:44], plan)
            jax.eval_shape(lambda: served(Ring(), params, x_TD[:44], cut))
        with pytest.raises(
            ValueError, match="^model.moe.num_experts=6: must be divisible by the 8"
        ):
            jax.eval_shape(lambda: served(AllToAll(), params, x_TD, plan, 6))
    slots = Slots(jnp.zeros((E, 2), jnp.int32), jnp.ones((E, 2)))
    with pytest.raises(ValueError, match="^model.moe.dispatch=Ring: serves token choice only, and"):
        with jax.set_mesh(mesh_of((1, 8))):
            served(Ring(), params, x_TD, slots)
