"""Batch prioritised routing: the surest tokens are served first (V-MoE, arXiv 2106.05974).

The choice is top-k's; who is dropped when slots run out is decided by priority instead of place,
so a token's fate depends on all tokens of its group.
"""

import dataclasses
from typing import Annotated, ClassVar, cast

import jax
import jax.numpy as jnp

from moe.fields import Above
from moe.order import owners, slot_rows
from moe.plan import Choices, Slots, capacity
from moe.routers.parts.ranking import take
from moe.routers.top_k import TopK


@dataclasses.dataclass(frozen=True)
class BatchPriority(TopK):
    """Top-k whose slots go to tokens by falling largest score, first choices before second.

    A token's score is the largest of its chosen experts, out of all experts and as the gates see
    it, before renormalisation and scale (section 4.1). Noise and losses are top-k's; the paper's
    own are those of `v_moe`.

    Attributes:
      renormalize: the paper's gates are the scores themselves.
      capacity_factor: slots per expert over assignments per expert at perfect balance.
    """

    renormalize: bool = False
    capacity_factor: Annotated[float, Above(0)] = 1.0

    causal: ClassVar[bool] = False
    causal_in_training: ClassVar[bool] = False
    batch_invariant: ClassVar[bool] = False
    fixed_choices: ClassVar[bool] = False

    def __call__(self, params, x_TD, id_T, E, rng):
        """Routes x_TD into Slots; what finds no slot is dropped here, and told by asked_TE."""
        routing, logits_TE = self.route(params, x_TD, id_T, rng)
        plan = cast(Choices, routing.plan)
        order_T = self.order_of(jax.lax.stop_gradient(logits_TE), plan.expert_TK)
        C = capacity(self.capacity_factor, x_TD.shape[0], self.k, E)
        slots = fill(plan, order_T, E, C)
        kept = jnp.sum(slots.token_EC < x_TD.shape[0]) / plan.expert_TK.size
        metrics = {**routing.metrics, "kept": kept}
        asked_TE = plan.assigned_TE(x_TD.shape[0], E)
        return dataclasses.replace(routing, plan=slots, metrics=metrics, asked_TE=asked_TE)

    def order_of(self, logits_TE: jax.Array, expert_TK: jax.Array) -> jax.Array:
        """Tokens by falling score; where float32 makes scores equal, by logit, then in order."""
        score_T, logit_T = (
            take(a, expert_TK).max(axis=1) for a in (self.score(logits_TE), logits_TE)
        )
        return jnp.lexsort((-logit_T, -score_T)).astype(jnp.int32)

    def with_capacity(self, factor):
        """With that factor."""
        return dataclasses.replace(self, capacity_factor=factor)

    def choices(self, E, T):
        """At most k, and as many as there are slots for."""
        del E, T
        return self.k * min(1.0, self.capacity_factor)


def fill(plan: Choices, order_T: jax.Array, E: int, C: int) -> Slots:
    """Gives the C slots of each expert to first choices in the given order, then to second ones."""
    T = order_T.shape[0]
    ordered = Choices(plan.expert_TK[order_T], plan.gate_TK[order_T])
    row_TK = slot_rows(ordered, E, C)
    place_R, rank_R = owners(row_TK, E * C)
    token_R = order_T.at[place_R].get(mode="fill", fill_value=T)
    gate_R = ordered.gate_TK.at[place_R, rank_R].get(mode="fill", fill_value=0)
    return Slots(token_R.reshape(E, C), gate_R.reshape(E, C))
