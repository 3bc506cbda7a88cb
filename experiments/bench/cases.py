"""Shapes, plans and layers that the benchmarks of layers run."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

from experiments.bench.timing import timed_calls
from moe.registry import Mistake


class Shape(NamedTuple):
    """T tokens, model width D, expert width F, E experts, k choices."""

    T: int
    D: int
    F: int
    E: int
    k: int

    @property
    def flops(self) -> int:
        """Useful FLOPs of a forward pass: three matrices of k experts for every token."""
        return 2 * 3 * self.T * self.k * self.D * self.F


def shape(text: str) -> Shape:
    """A shape from "T,D,F,E,k"; raises Mistake with the rule."""
    try:
        found = Shape(*map(int, text.split(",")))
    except (ValueError, TypeError):
        raise Mistake(f"--shape={text}: must be five ints T,D,F,E,k") from None
    if min(found) < 1 or found.k > found.E:
        raise Mistake(f"--shape={text}: must be ints T,D,F,E,k >= 1 with k <= E")
    return found


@dataclasses.dataclass
class Case:
    """One thing to time: its two calls, and what is known without timing."""

    forward: Callable[[], object]
    both: Callable[[], object]
    temp_bytes: int | None = None
    drop_rate: float = 0.0
    matrices: int = 3  # of an expert


def make_plan(one: Shape, skew: str):
    """A top-k plan of random logits, whose experts differ in popularity as the skew says."""
    import jax
    import jax.numpy as jnp

    from moe.plan import Choices

    expert_E = jnp.arange(one.E)
    bias_E = {
        "uniform": jnp.zeros(one.E),
        "zipf": -jnp.log1p(expert_E),
        "one": 100.0 * (expert_E == 0),
        "empty": -100.0 * (expert_E % 2) * (one.k <= one.E // 2),
    }[skew]
    logits_TE = jax.random.normal(jax.random.key(1), (one.T, one.E)) + bias_E[None]
    gate_TK, expert_TK = jax.lax.top_k(jax.nn.softmax(logits_TE), one.k)
    return Choices(expert_TK.astype(jnp.int32), gate_TK)


def layer_inputs(one: Shape, width: int, E: int, dtype: str):
    """SwiGLU experts of that width, their parameters, and the tokens."""
    import jax

    from moe.experts.feed_forward import SwiGLU

    def init(key):
        return jax.tree.map(lambda a: a.astype(dtype), experts.init(key, E, one.D))

    experts = SwiGLU(width)
    params = jax.jit(init)(jax.random.key(2))
    return experts, params, jax.random.normal(jax.random.key(3), (one.T, one.D), dtype)


def dense_case(one: Shape, dtype: str) -> Case:
    """The dense feed-forward layer of the same active FLOPs."""
    ffn, params, x_TD = layer_inputs(one, one.k * one.F, 1, dtype)
    return Case(*timed_calls(lambda params, x_TD: ffn(params, x_TD[None])[0], params, x_TD))
