"""Coefficients and capacity factors that others publish, in the units of this library.

Here the load-balance loss of a layer is 1 at balance for every K and is averaged over MoE layers
(arXiv 2101.03961 eq. 4-6, with f summing to 1), and a capacity factor counts assignments:
ceil(capacity_factor * T * K / E) slots. `docs/conventions.md` holds both tables in numbers.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Annotated, Literal

import jax
import jax.numpy as jnp

from moe.fields import Above, AtLeast, check_value
from moe.plan import capacity
from moe.registry import Mistake, no_such

# The load-balance loss at perfect balance, before its coefficient, as a function of E and K.
BALANCED: dict[str, Callable[[int, int], float]] = {
    "1": lambda E, K: 1.0,
    "K": lambda E, K: float(K),
    "1/K": lambda E, K: 1 / K,
    "1/E^2": lambda E, K: 1 / E**2,
}


@dataclasses.dataclass(frozen=True)
class LoadBalance:
    """How a system states its load-balance loss.

    Attributes:
      balanced: its value at perfect balance, before the coefficient; a key of BALANCED.
      over_layers: the losses of the layers are averaged or added, or counts and probabilities of
        all layers are pooled into one loss, which is their average where layers have equal loads.
      counts: all K choices of a token are counted, or the first alone.
      scope: the tokens over which a loss is formed; the nearest `Losses.scope`.
      source: the paper or the file.
    """

    balanced: str
    over_layers: Literal["mean", "sum", "pooled"]
    counts: Literal["all", "first"]
    scope: Literal["sequence", "group", "device", "batch"]
    source: str


@dataclasses.dataclass(frozen=True)
class Capacity:
    """How many slots a system gives one expert.

    Attributes:
      slots: of (capacity factor, T, E, K), T being the tokens that share the slots.
      formula: the same in words.
      source: the paper or the file.
    """

    slots: Callable[[float, int, int, int], int]
    formula: str
    source: str


LOAD_BALANCE = {
    "ours": LoadBalance("1", "mean", "all", "batch", "moe/routers/parts/losses.py"),
    "switch": LoadBalance("1", "sum", "first", "batch", "arXiv 2101.03961 eq. 4"),
    "huggingface": LoadBalance(
        "K", "pooled", "all", "device", "transformers modeling_mixtral.py, also OLMoE and Qwen3"
    ),
    "huggingface_switch": LoadBalance(
        "1", "pooled", "first", "sequence", "transformers modeling_switch_transformers.py"
    ),
    "megatron": LoadBalance("1", "sum", "all", "device", "megatron-core moe_utils.py aux_loss"),
    "megatron_sequence": LoadBalance(
        "1", "sum", "all", "sequence", "megatron-core router.py seq_aux_loss"
    ),
    "megatron_global": LoadBalance(
        "1", "sum", "all", "batch", "megatron-core router.py global_aux_loss"
    ),
    "megablocks": LoadBalance("1", "mean", "all", "device", "megablocks layers/moe.py"),
    "olmo_core": LoadBalance("1", "mean", "all", "device", "OLMo-core nn/moe/loss.py"),
    "deepspeed_top2": LoadBalance("1", "sum", "first", "device", "deepspeed sharded_moe.py"),
    "deepspeed_topk": LoadBalance("1", "sum", "all", "device", "deepspeed sharded_moe.py"),
    "fairscale": LoadBalance("1/E^2", "sum", "first", "device", "fairscale top2gate.py"),
    "deepseek": LoadBalance("1", "sum", "all", "sequence", "arXiv 2412.19437 eq. 17-20"),
    "maxtext": LoadBalance("K", "mean", "all", "sequence", "maxtext layers/moe.py"),
    "flaxformer": LoadBalance(
        "K", "mean", "all", "group", "flaxformer moe/routing.py, t5x contrib/moe/models.py"
    ),
    "vmoe": LoadBalance("1", "sum", "first", "group", "vmoe nn/routing.py, nn/vit_moe.py"),
    "levanter": LoadBalance("1/K", "sum", "all", "device", "levanter models/mixtral.py"),
    "axlearn": LoadBalance(
        "1", "mean", "all", "group", "axlearn mixture_of_experts.py, causal_lm.py"
    ),
}


def _multiple(value: int, of: int) -> int:
    return of * math.ceil(value / of)


CAPACITY = {
    "ours": Capacity(
        lambda cf, T, E, K: capacity(cf, T, K, E), "min(T, ceil(cf T K / E))", "moe/plan.py"
    ),
    "megatron": Capacity(
        lambda cf, T, E, K: math.ceil(T * K / E * cf),
        "ceil(cf T K / E)",
        "megatron-core moe_utils.py",
    ),
    "megablocks": Capacity(
        lambda cf, T, E, K: int(cf * T * K / E) or T,
        "floor(cf T K / E), no limit if that is 0",
        "megablocks layers/moe.py",
    ),
    "olmo_core": Capacity(
        lambda cf, T, E, K: _multiple(int(cf * T * K / E), 8),
        "floor(cf T K / E), up to a multiple of 8",
        "OLMo-core nn/moe",
    ),
    "deepspeed": Capacity(
        lambda cf, T, E, K: max(math.ceil(T / E * K * cf), 4),
        "max(ceil(cf T K / E), 4)",
        "deepspeed sharded_moe.py",
    ),
    "tutel": Capacity(
        lambda cf, T, E, K: K * int(cf * math.ceil(T / E)),
        "K floor(cf ceil(T / E))",
        "tutel impls/fast_dispatch.py",
    ),
    "fastmoe": Capacity(
        lambda cf, T, E, K: math.ceil(cf * T) * K // E,
        "floor(ceil(cf T) K / E)",
        "fastmoe gates/gshard_gate.py",
    ),
    "lucidrains": Capacity(
        lambda cf, T, E, K: max(min(T, int(T * cf / E)), 4),
        "max(min(T, floor(cf T / E)), 4)",
        "mixture_of_experts",
    ),
    "vmoe": Capacity(
        lambda cf, T, E, K: _multiple(math.ceil(T * K * cf / E), 4),
        "ceil(cf T K / E), up to a multiple of 4",
        "vmoe moe.py",
    ),
    "maxtext": Capacity(
        lambda cf, T, E, K: int(max(math.ceil(T * K / E) * cf, cf)),
        "floor(cf max(ceil(T K / E), 1))",
        "maxtext layers/moe.py",
    ),
    "flaxformer": Capacity(
        lambda cf, T, E, K: max(round(cf * T / E), 4),
        "max(round(cf T / E), 4)",
        "flaxformer moe/moe_layers.py",
    ),
    "praxis": Capacity(
        lambda cf, T, E, K: _multiple(int(cf * T / E), 4),
        "floor(cf T / E), up to a multiple of 4",
        "praxis gshard_utils.py",
    ),
    "axlearn": Capacity(
        lambda cf, T, E, K: int(cf * T / E), "floor(cf T / E)", "axlearn mixture_of_experts.py"
    ),
}


def load_balance_weight(system: str, coefficient: float, E: int, K: int, layers: int) -> float:
    """The `Losses.load_balance` that weighs as much at balance as another system's coefficient.

    The gradients agree too where the loss differs from ours by a factor alone, that is where all
    choices are counted and layers are not pooled.

    Args:
      system: a name in LOAD_BALANCE.
      layers: MoE layers of the model; matters where losses are added over layers.

    Raises Mistake for an unknown system and for a coefficient that is no number >= 0.
    """
    convention = _find(system, LOAD_BALANCE)
    check_value(Annotated[float, AtLeast(0)], coefficient, "conventions.coefficient")
    factor = layers if convention.over_layers == "sum" else 1
    return coefficient * BALANCED[convention.balanced](E, K) * factor


def slots(system: str, factor: float, T: int, E: int, K: int) -> int:
    """The slots that a system gives one expert when T tokens share them.

    Raises Mistake for an unknown system and for a factor that is no number > 0.
    """
    convention = _find(system, CAPACITY)
    check_value(Annotated[float, Above(0)], factor, "conventions.capacity_factor")
    return convention.slots(factor, T, E, K)


def capacity_factor(system: str, factor: float, T: int, E: int, K: int) -> float:
    """Our capacity factor that gives as many slots, or T of them where the system gives more.

    Raises Mistake as `slots` does, and where the system gives none.
    """
    found = slots(system, factor, T, E, K)
    if found < 1:
        raise Mistake(f"conventions.capacity_factor={factor}: {system} gives 0 slots at T={T}")
    return found * E / (T * K)


def pooled_load_balance(
    count_NE: jax.Array, probability_NE: jax.Array, tokens: int | jax.Array
) -> jax.Array:
    """Hugging Face's load-balance loss: E sum_e f_e P_e over all layers and tokens; K at balance.

    A collapse that differs from layer to layer cancels in it: it can have its value of balance
    while every layer's own loss is far above.

    Args:
      count_NE: assignments of each layer; carry no gradient.
      probability_NE: router probabilities summed over the same tokens.
      tokens: the number of those tokens in one layer.
    """
    N, E = count_NE.shape
    f_E = jax.lax.stop_gradient(count_NE.sum(axis=0) / (N * tokens))
    return E * jnp.sum(f_E * probability_NE.sum(axis=0) / (N * tokens))


def _find(system, table):
    if system not in table:
        raise Mistake(f"system={system}: {no_such('system', system, table)}")
    return table[system]
