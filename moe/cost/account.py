"""Parameters, FLOPs and bytes of an experiment by formula.

A multiply-add is two FLOPs; only matrix products count. Attention is counted as it is computed,
over the full square of positions. tests/cost/test_cost.py checks the formulas against compiled HLO.
"""

import dataclasses
import functools

import jax

from moe.experiment import Experiment
from moe.model.transformer import Transformer
from moe.params import split_state


@dataclasses.dataclass(frozen=True)
class Account:
    """What an experiment costs.

    Attributes:
      params_total, params_active: all parameters, and those that one token uses; integer tables
        do not count. The embedding counts in both.
      params_by_part: total parameters by part.
      flops_by_part: forward matrix-product FLOPs per token; "dispatch" is not in the sum.
      flops_per_token: their sum without "dispatch".
      memory_bytes: estimates for training; activations for one microbatch.
    """

    params_total: int
    params_active: int
    params_by_part: dict[str, int]
    flops_by_part: dict[str, float]
    flops_per_token: float
    memory_bytes: dict[str, int]


def params_by_part(model: Transformer, tokens: int | None = None) -> dict[str, int]:
    """Parameters by part: all of them, or those that one of `tokens` tokens in a call uses."""
    D, N, a = model.model_width, model.num_layers, model.attention
    sparse = len(model.moe_layers)
    parts = {
        "embedding": model.vocab_size * D,
        "head": 0 if model.tied_head else model.vocab_size * D,
        "attention": N * (2 * a.num_heads + 2 * a.num_kv_heads) * a.head_width * D,
        "norms": (2 * N + 1) * D + (2 * N * a.head_width if a.qk_norm else 0),
        "dense_ffn": (N - sparse) * model.ffn.matrices * D * model.ffn.width,
        "experts": 0,
        "shared_experts": 0,
        "null_experts": 0,
        "router": 0,
    }
    if model.moe is not None:
        moe = model.moe
        used = [moe.num_experts] * sparse if tokens is None else served(model, tokens)
        parts["experts"] = round(sum(used) * moe.experts.matrices * D * moe.experts.width)
        parts["shared_experts"] = sparse * _size(moe.shared and moe.shared.init, D)
        parts["null_experts"] = sparse * _size(moe.null and moe.null.init, D)
        parts["router"] = sum(
            _size(router.init, D, moe.routed_experts, model.vocab_size) for router in model.routers
        )
    return parts


def served(model: Transformer, tokens: int) -> list[float]:
    """Feed-forward experts per token in each MoE layer; null experts take their even share."""
    moe = model.sparse
    share = moe.num_experts / moe.routed_experts
    return [router.choices(moe.routed_experts, tokens) * share for router in model.routers]


@functools.cache  # of one router in thousands of layers
def _size(init, *sizes: int) -> int:
    """Learned parameters that `init` makes; FLOPs count each of them once per token."""
    if init is None:
        return 0
    shapes = jax.eval_shape(lambda: init(jax.random.key(0), *sizes))  # touches no device
    return sum(leaf.size for leaf in jax.tree.leaves(split_state(shapes)[0]))


def flops_by_part(model: Transformer, length: int, tokens: int) -> dict[str, float]:
    """Forward FLOPs per token, for sequences of `length` and `tokens` in one call."""
    D, N, a = model.model_width, model.num_layers, model.attention
    params = params_by_part(model, tokens)
    parts = {
        "attention_projections": 2.0 * params["attention"],
        "attention_scores": 4.0 * N * a.num_heads * a.head_width * length,
        "dense_ffn": 2.0 * params["dense_ffn"],
        "experts": 2.0 * params["experts"],
        "shared_experts": 2.0 * params["shared_experts"],
        "router": 2.0 * params["router"],
        "head": 2.0 * D * model.vocab_size,
        "dispatch": 0.0,
    }
    if model.moe is not None:
        E, dispatch = model.moe.num_experts, model.moe.dispatch
        parts["dispatch"] = sum(dispatch.overhead(tokens, K, E, D) for K in served(model, tokens))
    return parts


def flops_per_token(model: Transformer, length: int, tokens: int | None = None) -> float:
    """Forward FLOPs per token, attention, router and head counted, dispatch not.

    tokens: of one call of the model, one sequence if not given; few routers' cost depends on it.
    """
    parts = flops_by_part(model, length, tokens or length)
    return sum(parts.values()) - parts["dispatch"]


def account(experiment: Experiment) -> Account:
    """Counts everything for one experiment."""
    model, length = experiment.model, experiment.data.sequence_length
    tokens = experiment.tokens_per_call
    total, active = params_by_part(model), params_by_part(model, tokens)
    learned = sum(total.values())
    return Account(
        params_total=learned,
        params_active=sum(active.values()),
        params_by_part=total,
        flops_by_part=flops_by_part(model, length, tokens),
        flops_per_token=flops_per_token(model, length, tokens),
        memory_bytes={
            "parameters": 4 * learned,
            "gradients": 4 * learned,
            "optimizer": 8 * learned,
            "activations": _activation_bytes(experiment),
        },
    )


def _activation_bytes(experiment: Experiment) -> int:
    """What the backward pass keeps of one microbatch, without fusion and remat: an estimate."""
    model, a = experiment.model, experiment.model.attention
    D, L, sparse = model.model_width, experiment.data.sequence_length, len(model.moe_layers)
    size = 2 if model.dtype == "bfloat16" else 4
    heads = (2 * a.num_heads + 2 * a.num_kv_heads) * a.head_width
    attention = 3 * D + 2 * heads + 2 * a.num_heads * L
    dense = 2 * D + (model.ffn.matrices + 1) * model.ffn.width
    per_token = model.num_layers * attention + (model.num_layers - sparse) * dense
    if model.moe is not None:
        experts, shared = model.moe.experts, model.moe.shared
        routed = 2 * D + (experts.matrices + 1) * experts.width
        per_token += sparse * 2 * D + sum(served(model, experiment.tokens_per_call)) * routed
        if shared is not None:
            per_token += sparse * (2 * D + (shared.ffn.matrices + 1) * shared.ffn.width)
    return round(experiment.tokens_per_call * (size * per_token + 2 * 4 * model.vocab_size))
