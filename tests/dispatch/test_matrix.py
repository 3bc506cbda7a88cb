"""Every dispatcher under every router on 1, 2 and 8 devices: the dense oracle's numbers."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from moe import registry
from moe.dispatch.limited import Parallel
from moe.dispatch.oracle import Oracle
from moe.experts.contract import Pool
from moe.plan import Choices, Slots
from tests.contracts.dispatch import mesh_of, served
from tests.contracts.routers import EXPERTS, D, E, T, compiled, inputs, registered

pytestmark = [pytest.mark.slow, pytest.mark.multi_device]

DISPATCHERS = [name for name in registry.names("dispatch") if name != "oracle"]


def dispatcher(name):
    """In a form that drops nothing here."""
    dispatch = registry.lookup("dispatch", name)
    if hasattr(dispatch, "capacity_factor"):
        return dataclasses.replace(dispatch, capacity_factor=float(E))
    return dispatch


@pytest.fixture(scope="module")
def plans():
    """(router, load) -> its plan, for tokens that differ and for tokens that are all the same."""
    spread = inputs()
    same = jax.tree.map(lambda a: jnp.broadcast_to(a[:1, :1], a.shape), spread)
    found = {}
    for name, router in registered().items():
        params, route = compiled(router)
        for load, arrays in (("spread", spread), ("one for all", same)):
            found[name, load] = widened(route(params, *arrays, None)[1].plan)
    return found


def widened(plan):
    """A plan of 3 to 7 choices as one of 8, the last ones not made: widths cost compilations."""
    if not isinstance(plan, Choices) or not 2 < plan.expert_TK.shape[1] < 8:
        return plan
    missing = ((0, 0), (0, 8 - plan.expert_TK.shape[1]))
    expert_TK = jnp.pad(plan.expert_TK, missing, constant_values=E)
    return Choices(expert_TK, jnp.pad(plan.gate_TK, missing))


@functools.partial(jax.jit, static_argnums=0)
def run(dispatch, params, x_TD, plan):
    def loss(params, x_TD, plan):
        y_TD, stats = served(dispatch, plan, x_TD, Pool(params, EXPERTS, E))
        return jnp.sum(jnp.sin(y_TD)), (y_TD, stats)

    return jax.grad(loss, (0, 1, 2), has_aux=True, allow_int=True)(params, x_TD, plan)


@pytest.fixture(scope="module")
def arrays():
    params = EXPERTS.init(jax.random.key(0), E, D)
    return params, jax.random.normal(jax.random.key(1), (T, D))


@pytest.fixture(scope="module")
def wanted(plans, arrays):
    return {key: run(Oracle(), *arrays, plan) for key, plan in plans.items()}


@pytest.mark.parametrize("devices", [1, 2, 8])  # 8 hold 2 x 4
@pytest.mark.parametrize("name", DISPATCHERS)
def test_every_router_gets_the_oracle_s_numbers(name, devices, plans, arrays, wanted):
    dispatch = dispatcher(name)
    mesh = mesh_of(2, 4) if devices == 8 else mesh_of(1, devices)
    params, x_TD = arrays
    tokens = jax.P(("data", "expert"))
    served = 0
    with jax.set_mesh(mesh):
        params = jax.device_put(params, jax.NamedSharding(mesh, jax.P("expert")))
        x_TD = jax.device_put(x_TD, jax.NamedSharding(mesh, tokens))
        for key, plan in plans.items():
            if isinstance(dispatch, Parallel) and not isinstance(plan, Choices):
                continue
            (grads, (y_TD, stats)), (want_grads, (want_TD, want)) = (
                run(dispatch, params, x_TD, plan),
                wanted[key],
            )
            served += 1
            scale = float(jnp.abs(want_TD).max()) + 1e-6
            np.testing.assert_allclose(y_TD, want_TD, atol=1e-5 * scale, err_msg=str(key))
            whole = 0 if isinstance(plan, Choices | Slots) else 1e-6  # a soft load is no count
            np.testing.assert_allclose(stats.load_E, want.load_E, whole, err_msg=str(key))
            assert float(stats.dropped_K.sum()) == 0, key
            assert not isinstance(dispatch, Parallel) or stats.load_E.is_fully_replicated
            if stats.load_E.is_fully_replicated:  # bit-equal on all devices
                for shard in stats.load_E.addressable_shards:
                    np.testing.assert_array_equal(shard.data, np.asarray(stats.load_E))
            for got, hoped in zip(jax.tree.leaves(grads), jax.tree.leaves(want_grads), strict=True):
                if got.dtype != jax.dtypes.float0:
                    largest = float(jnp.abs(hoped).max()) + 1e-6
                    np.testing.assert_allclose(got, hoped, atol=1e-5 * largest, err_msg=str(key))
    assert served >= 2 * 30
