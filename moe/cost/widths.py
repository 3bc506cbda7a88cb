"""Widths at which two models have equal FLOPs or equal parameters."""

import dataclasses

from moe.cost.account import flops_per_token, params_by_part
from moe.model.transformer import Transformer
from moe.registry import Mistake


def with_width(model: Transformer, width: int) -> Transformer:
    """The model with experts of this hidden width, or, if dense, such a feed-forward layer."""
    if model.moe is None:
        return model.clone(ffn=dataclasses.replace(model.ffn, width=width))
    experts = dataclasses.replace(model.moe.experts, width=width)
    return model.clone(moe=dataclasses.replace(model.moe, experts=experts))


def _solve(model: Transformer, quantity, target: float) -> Transformer:
    """The width whose quantity, linear in it, is nearest to the target; at most 1 % away."""
    at_1, at_2 = (quantity(with_width(model, width)) for width in (1, 2))
    width = max(1, round(1 + (target - at_1) / (at_2 - at_1)))
    solved = with_width(model, width)
    off = quantity(solved) / target - 1
    if abs(off) > 0.01:
        raise Mistake(
            f"width={width}: the nearest width misses the target by {off:+.1%}; it must be "
            "within 1 %: widen the reference model or take fewer or smaller experts"
        )
    return solved


def match_flops(model: Transformer, reference: Transformer, length: int) -> Transformer:
    """The model with the width at which it costs the reference's FLOPs per token, within 1 %."""
    return _solve(model, lambda m: flops_per_token(m, length), flops_per_token(reference, length))


def match_parameters(model: Transformer, reference: Transformer) -> Transformer:
    """The model with the width at which it has the reference's total parameters, within 1 %."""
    target = sum(params_by_part(reference).values())
    return _solve(model, lambda m: sum(params_by_part(m).values()), target)


def fine_grained(model: Transformer, parts: int) -> Transformer:
    """Every expert cut into `parts` of its width, and as many times the choices (2401.06066).

    Expert parameters and FLOPs stay the same; the router grows. Raises Mistake, one line, where
    the width does not divide or a router has no k.
    """
    moe, width = model.sparse, model.sparse.experts.width
    if parts < 1 or width % parts:
        raise Mistake(f"model.moe.experts.width={width}: must be divisible by parts={parts}")
    k = getattr(moe.router, "k", None)
    if k is None:
        raise Mistake(f"model.moe.router={type(moe.router).__name__}: has no k to multiply")
    changed = dataclasses.replace(
        moe,
        num_experts=moe.num_experts * parts,
        router=dataclasses.replace(moe.router, k=k * parts),
        experts=dataclasses.replace(moe.experts, width=width // parts),
    )
    return model.clone(moe=changed)
