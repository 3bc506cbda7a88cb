"""Parameters and FLOPs of an experiment by formula.

A multiply-add is two FLOPs; only matrix products count, as often as the forward pass of training
computes them and whatever their factors are: `Router.products` counts those of frozen weights too,
and "mixing" those that carry tokens to the slots of a soft plan and back. Attention is counted over
the full square of positions, as XLA computes it and MFU has it (PaLM, arXiv 2204.02311); a kernel
may skip what the mask forbids. tests/cost/ checks the formulas against compiled HLO.
"""

import dataclasses
import functools

import jax

from moe.experiment import Experiment
from moe.model.layer import MoE
from moe.model.transformer import Transformer
from moe.params import split_state
from moe.routers.contract import Router


@dataclasses.dataclass(frozen=True)
class Account:
    """What an experiment costs.

    Attributes:
      params_total, params_active: all that learn, and those of them that one token uses; neither
        hash tables nor frozen projections count. The embedding counts in both.
      params_by_part: total parameters by part.
      flops_by_part: forward matrix-product FLOPs per token; "dispatch" is not in the sum.
      flops_per_token: their sum without "dispatch".
    """

    params_total: int
    params_active: int
    params_by_part: dict[str, int]
    flops_by_part: dict[str, float]
    flops_per_token: float


def params_by_part(model: Transformer, tokens: int | None = None) -> dict[str, int]:
    """Parameters by part: all of them, or those that one of `tokens` tokens in a call uses."""
    D, N, a = model.model_width, model.num_layers, model.attention
    ids = model.vocab_size if tokens is None else 1  # whose rows of a learned table are read
    sparse, vectors = len(model.moe_layers), model.token_vectors
    parts = {
        "embedding": model.vocab_size * D,
        "head": 0 if model.tied_head else model.vocab_size * D,
        "attention": N * (2 * a.num_heads + 2 * a.num_kv_heads) * a.head_width * D,
        "norms": (2 * N + 1) * D + (2 * N * a.head_width if a.qk_norm else 0),
        "token_vectors": N * _size(vectors and vectors.init, ids, D),
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
            _size(router.init, D, moe.routed_experts, ids) for router in model.routers
        )
    return parts


def served(model: Transformer, tokens: int) -> list[float]:
    """Feed-forward experts per token in each MoE layer; null experts take their even share."""
    moe = model.sparse
    share, T = moe.num_experts / moe.routed_experts, _group(moe, tokens)
    return [router.choices(moe.routed_experts, T) * share for router in model.routers]


def _group(moe: MoE, tokens: int) -> int:
    """How many of that many tokens are routed together."""
    return max(1, tokens // moe.dispatch.groups(tokens))


@functools.cache  # of one router in thousands of layers
def _size(init, *sizes: int) -> int:
    """Learned parameters that `init` makes."""
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
        "null_experts": 0.0,
        "router": 0.0,
        "mixing": 0.0,
        "head": 2.0 * D * model.vocab_size,
        "dispatch": 0.0,
    }
    if model.moe is not None:
        for router, K in zip(model.routers, served(model, tokens), strict=True):
            for part, flops in _flops_of_routing(model.moe, router, K, (tokens, D)).items():
                parts[part] += flops
    return parts


def _flops_of_routing(
    moe: MoE, router: Router, K: float, sizes: tuple[int, int]
) -> dict[str, float]:
    """What one MoE layer costs beside its networks, K of them serving one of the tokens.

    Null experts compute every token, or their own slots where tokens are mixed.

    Args:
      sizes: the tokens in one call, and D.
    """
    (tokens, D), E = sizes, moe.routed_experts
    found = {"router": 2.0 * router.products(D, E)}
    if router.mixes:
        T = _group(moe, tokens)
        slots = router.choices(E, T)  # per token, of all experts
        found["mixing"] = 4.0 * T * slots * D
    else:
        slots = E
        found["dispatch"] = moe.dispatch.overhead(tokens, K, moe.num_experts, D)
    if moe.null is not None:
        combine = 0 if router.mixes else moe.null.count * D
        found["null_experts"] = 2.0 * (moe.null.products(D) * slots / E + combine)
    return found


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
    return Account(
        params_total=sum(total.values()),
        params_active=sum(active.values()),
        params_by_part=total,
        flops_by_part=flops_by_part(model, length, tokens),
        flops_per_token=flops_per_token(model, length, tokens),
    )
