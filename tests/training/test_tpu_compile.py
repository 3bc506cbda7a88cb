"""Compiling ahead of time for TPU slices that are not there: FLOPs, collectives and their bytes.

Needs libtpu (`make test-tpu` installs it aside), which compiles without a TPU.
"""

import functools
import importlib.util
import os
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from moe.cost.compiled import collectives
from moe.dispatch.all_to_all import AllToAll
from moe.dispatch.overflow import Exact
from moe.dispatch.ragged import Ragged
from moe.dispatch.ragged_all_to_all import RaggedAllToAll
from moe.experts.contract import Pool
from moe.experts.feed_forward import SwiGLU
from moe.kernels.contract import Groups
from moe.kernels.grouped import PerPlatform
from moe.plan import Choices
from tests.contracts.dispatch import served

pytestmark = [
    pytest.mark.usefixtures("optimised"),
    pytest.mark.tpu,
    pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs libtpu"),
]
R, D, F, E = 4096, 512, 1024, 16
SLICES = ("v5e:2x2", "v6e:2x2")


@functools.cache
def devices(name):
    """The devices of a slice; what would ask a cloud for its metadata is answered here."""
    from jax.experimental import topologies

    os.environ |= {
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_WORKER_HOSTNAMES": "localhost",
        "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    }
    return np.array(topologies.get_topology_desc(platform="tpu", topology_name=name).devices)


def struct(sharding, dtype, *shape):
    return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
@pytest.mark.parametrize("name", SLICES)
def test_a_grouped_product_does_the_work_of_its_rows_only(name, dtype):
    one = functools.partial(struct, jax.sharding.SingleDeviceSharding(devices(name)[0]))
    kernel = PerPlatform()
    size_E = one(jnp.int32, E)
    x, dy, w = one(dtype, R, D), one(dtype, R, F), one(dtype, E, D, F)

    def product(size_E, x, w, contract):
        return kernel.product(Groups(size_E, R, kernel), x, w, contract)

    def weights(size_E, x, dy):
        return kernel.weight_gradient(Groups(size_E, R, kernel), x, dy)

    calls = {
        "forward": (functools.partial(product, contract=0), x, w),
        "dx": (functools.partial(product, contract=1), dy, w),
        "dw": (weights, x, dy),
    }
    # Everything is read or written once, but for tiles of a kernel; no copy of the weights.
    moved = (R * D + R * F + E * D * F) * jnp.dtype(dtype).itemsize
    for what, (call, *arrays) in calls.items():
        compiled = jax.jit(call).lower(size_E, *arrays).compile()
        cost, memory = compiled.cost_analysis(), compiled.memory_analysis()
        assert cost["flops"] == pytest.approx(2 * R * D * F, rel=0.02), what
        assert cost["bytes accessed"] <= 1.1 * moved, what
        assert memory.temp_size_in_bytes < 1e6, what  # no dense E x R x F on the way
        # What the kernels claim, their text must not belie: XLA itself multiplies nothing.
        assert not re.search(r" (dot|convolution)\(", compiled.as_text()), what


def layer(dispatch, pool, x_TD, plan):
    return jax.grad(lambda pool, x: jnp.sum(jnp.sin(served(dispatch, plan, x, pool)[0])), (0, 1))(
        pool, x_TD
    )


def layer_inputs(make, shape, experts, K):
    T, D, E = shape
    params = jax.eval_shape(lambda: experts.init(jax.random.key(0), E, D))
    params = jax.tree.map(lambda a: make(jnp.bfloat16, *a.shape), params)
    plan = Choices(make(jnp.int32, T, K), make(jnp.float32, T, K))
    return Pool(params, experts, E), make(jnp.bfloat16, T, D), plan


@pytest.mark.parametrize("name", SLICES)
def test_the_dropless_layer_compiles_forward_and_backward(name):
    T, K = 4096, 2
    one = functools.partial(struct, jax.sharding.SingleDeviceSharding(devices(name)[0]))
    inputs = layer_inputs(one, (T, 512, 16), SwiGLU(512), K)
    call = functools.partial(layer, Ragged())
    cost = jax.jit(call).lower(*inputs).compile().cost_analysis()
    # Nine products of T * K rows; the rows of padding (1 in 32) and all else are 6 % at most.
    assert 1 <= cost["flops"] / (9 * 2 * T * K * 512 * 512) < 1.06


@pytest.mark.parametrize(
    ("dispatch", "want"),
    [
        # Room for 2 * 512 rows a device, of 256 values of 2 bytes: out and back, forward and
        # backward; the numbers of their experts out only.
        (AllToAll(), [("all-to-all", 1024 * 4)] + 4 * [("all-to-all", 1024 * 256 * 2)]),
        # 2048 tokens, the experts (4 bytes) and the gates (sent in 2) of their 2 choices; the
        # gradient once more. A device gets back the sums of its 256 tokens, twice.
        (
            Ragged(),
            [
                ("all-gather", 2048 * 2 * 2),
                ("all-gather", 2048 * 2 * 4),
                ("all-gather", 2048 * 256 * 2),
                ("all-gather", 2048 * 256 * 2),
                ("reduce-scatter", 256 * 256 * 2),
                ("reduce-scatter", 256 * 256 * 2),
            ],
        ),
        # What a device sends, 512 rows, and has room to receive, 1024: out and back, forward and
        # backward. Before it all tell all how many rows go to each of the 8 experts (of this gather
        # XLA makes a reduction of a few bytes).
        (
            RaggedAllToAll(),
            [("all-reduce", 8 * 8 * 4)]
            + 2 * [("ragged-all-to-all", 512 * 256 * 2)]
            + 2 * [("ragged-all-to-all", 1024 * 256 * 2)],
        ),
    ],
    ids=["all_to_all", "ragged", "ragged_all_to_all"],
)
def test_collectives_and_their_bytes_on_a_slice_of_eight(dispatch, want):
    auto = (jax.sharding.AxisType.Auto,)
    mesh = jax.sharding.Mesh(devices("v5e:2x4").reshape(8), ("expert",), axis_types=auto)
    make = functools.partial(struct, jax.NamedSharding(mesh, jax.P("expert")))
    inputs = layer_inputs(make, (2048, 256, 8), SwiGLU(128), 2)
    with jax.set_mesh(mesh):
        compiled = jax.jit(functools.partial(layer, dispatch)).lower(*inputs).compile()
    found = collectives(compiled.as_text())
    assert sorted((one.kind, one.bytes) for one in found) == want


@pytest.mark.parametrize("dispatch", [AllToAll(overflow=Exact()), RaggedAllToAll(overflow=Exact())])
def test_the_exact_answer_to_overflow_compiles(dispatch):
    auto = (jax.sharding.AxisType.Auto,)
    mesh = jax.sharding.Mesh(devices("v5e:2x2").reshape(4), ("expert",), axis_types=auto)
    make = functools.partial(struct, jax.NamedSharding(mesh, jax.P("expert")))
    inputs = layer_inputs(make, (1024, 256, 8), SwiGLU(128), 2)
    with jax.set_mesh(mesh):
        text = jax.jit(functools.partial(layer, dispatch)).lower(*inputs).compile()
    # The slower path is there, in a branch of its own.
    assert " conditional(" in text.as_text() and "reduce-scatter" in text.as_text()
