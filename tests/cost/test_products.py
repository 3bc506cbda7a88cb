"""Matrix products that routers and layers declare, against those of compiled programs."""

import dataclasses
import math
import re

import jax
import jax.numpy as jnp
import pytest

from moe import registry
from moe.cost import account
from moe.dispatch.einsum import Einsum
from moe.dispatch.ragged import Ragged
from moe.experts.feed_forward import ReLU, SwiGLU
from moe.experts.null import NullExperts
from moe.model.attention import Attention
from moe.model.layer import MoE
from moe.model.transformer import Transformer
from moe.plan import Tokens
from moe.routers.kmeans import KMeans
from moe.routers.soft import Soft
from moe.routers.stability import Frozen
from moe.routers.top_k import TopK

T, D, E, V = 48, 24, 16, 40
_DEFINED = re.compile(r"%?([\w.\-]+) = [a-z]+\d+\[([\d,]*)\]")
_DOT = re.compile(r" dot\((?:\w+\[[\d,]*\]\S* )?%?([\w.\-]+),.*lhs_contracting_dims=\{([\d,]*)\}")


def multiply_adds(function, *shapes):
    """Those of the matrix products in the compiled function, loops left out."""
    quickly = {"xla_backend_optimization_level": 0}
    text = jax.jit(function).lower(*shapes).compile(quickly).as_text()
    loops = set(re.findall(r"(?:body|condition)=%?([\w.\-]+)", text))
    total, inside, shape_of = 0, "", {}
    for line in text.splitlines():
        if line.endswith("{"):
            inside = line.removeprefix("ENTRY ").split()[0].lstrip("%")
        defined, dot = _DEFINED.search(line), _DOT.search(line)
        if defined:
            shape_of[defined[1]] = [int(n) for n in defined[2].split(",") if n]
        if dot and defined and inside not in loops:
            summed = [shape_of[dot[1]][int(axis)] for axis in dot[2].split(",") if axis]
            total += math.prod(shape_of[defined[1]]) * math.prod(summed)
    return total


def shapes_of(make, *arguments):
    return jax.eval_shape(lambda: make(jax.random.key(0), *arguments))


def each():
    """Every router; what differs from one before in numbers alone is left to the slow tier."""
    seen = set()
    for name in registry.names("router"):
        router = registry.lookup("router", name)
        kinds = (type(router), *(type(getattr(router, part, None)) for part in ("noise", "gate")))
        yield pytest.param(name, marks=pytest.mark.slow if kinds in seen else ())
        seen.add(kinds)


@pytest.mark.parametrize("name", list(each()))
def test_a_router_declares_its_products(name):
    router = registry.lookup("router", name)
    params = shapes_of(router.init, D, E, V)

    def route(params, x_TD, id_T):
        return router(params, x_TD, id_T, E, jax.random.key(1))

    x_TD, id_T = jax.ShapeDtypeStruct((T, D), jnp.float32), jnp.zeros(T, jnp.int32)
    assert multiply_adds(route, params, x_TD, id_T) == T * router.products(D, E)


def model_of(moe):
    attention = Attention(num_heads=1, num_kv_heads=1, head_width=8)
    return Transformer(V, 1, D, attention, moe=moe, moe_layers=(0,))


@pytest.mark.parametrize(
    ("moe", "beside"),
    [
        # Router: x phi, 16 experts of 2 slots. Mixing: two products over 48 tokens and 32 slots.
        (
            MoE(E, Soft(slots=2), Ragged(), ReLU(8)),
            {"router": 2 * D * 32, "mixing": 4 * 32 * D, "null_experts": 0},
        ),
        # 3 groups of 16 tokens: each expert has 2 slots in each of them, 3 times the rows.
        (
            MoE(E, Soft(slots=2), Einsum(group_size=16), ReLU(8)),
            {"router": 2 * D * 32, "mixing": 4 * 32 * D, "null_experts": 0},
        ),
        # Soft over 12 experts and 4 null ones, of which 2 are constant: a (D, 2) each, on 2 slots.
        (
            MoE(12, Soft(slots=2), Ragged(), ReLU(8), null=NullExperts()),
            {"router": 2 * D * 32, "mixing": 4 * 32 * D, "null_experts": 2 * 2 * 2 * D * 2 / T},
        ),
        # A frozen router's x w; cosines and moving sums of k-means.
        (MoE(E, Frozen(k=E), Einsum(1.0, 0), SwiGLU(8)), {"router": 2 * D * E}),
        (MoE(E, KMeans(k=E), Einsum(1.0, 0), SwiGLU(8)), {"router": 4 * D * E}),
        # Null experts read every token: 2 constant ones of (D, 2), and 4 outputs are weighed.
        (
            MoE(12, TopK(k=E), Einsum(1.0, 0), SwiGLU(8), null=NullExperts()),
            {"router": 2 * D * E, "null_experts": 2 * 2 * 2 * D + 2 * 4 * D},
        ),
    ],
    ids=["soft", "soft in groups", "soft and null", "frozen", "kmeans", "null"],
)
def test_parts_of_a_layer_by_hand(moe, beside):
    model = model_of(moe)
    parts = account.flops_by_part(model, T, T)
    assert {name: parts[name] for name in beside} == pytest.approx(beside)
    assert account.flops_per_token(model, T) == sum(parts.values()) - parts["dispatch"]


@pytest.mark.parametrize(
    "moe",
    [
        MoE(E, Soft(slots=2), Ragged(), ReLU(8)),
        MoE(E, Soft(slots=2), Einsum(group_size=16), ReLU(8)),
        MoE(12, Soft(slots=2), Ragged(), ReLU(8), null=NullExperts()),
    ],
    ids=["soft", "soft in groups", "soft and null"],
)
def test_a_layer_that_mixes_costs_what_is_compiled(moe):
    params = shapes_of(moe.init, D, V)

    def apply(params, x_BLD):
        tokens = Tokens(jnp.zeros((1, T), jnp.int32))
        return moe(params, x_BLD, tokens, jax.random.key(1))[0]

    x_BLD = jax.ShapeDtypeStruct((1, T, D), jnp.float32)
    parts = account.flops_by_part(model_of(moe), T, T)
    ours = sum(parts[name] for name in ("router", "mixing", "experts", "null_experts", "dispatch"))
    assert 2 * multiply_adds(apply, params, x_BLD) == pytest.approx(T * ours)


def test_learned_and_frozen_weights_cost_the_same():
    learned = model_of(MoE(E, TopK(k=2), experts=SwiGLU(8)))
    frozen = learned.clone(moe=dataclasses.replace(learned.moe, router=Frozen(k=2)))
    assert account.flops_per_token(learned, T) == account.flops_per_token(frozen, T)
