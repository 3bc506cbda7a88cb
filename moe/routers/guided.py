"""Routing guided by a human label of every token: its desk, its frequency band, its word class.

Labels come with the batch (`data.label`). DEMix (arXiv 2108.05036) replaces the router by a
domain label; supervising a router keeps it able to route without one.
"""

import dataclasses
from typing import Annotated, ClassVar

import jax
import jax.numpy as jnp

from moe.fields import AtLeast
from moe.registry import Mistake
from moe.routers.parts.losses import Losses
from moe.routers.top_k import TopK


@dataclasses.dataclass(frozen=True)
class GuidedLosses(Losses):
    """The auxiliary losses of a scoring router and the cross-entropy against labels.

    Attributes:
      guidance: weight of -log of the probability that all experts of the label have together.
    """

    guidance: Annotated[float, AtLeast(0)] = 0.1

    def __call__(self, sums, tokens):
        """Adds the guidance loss, unless it weighs nothing."""
        losses, metrics = super().__call__(sums, tokens)
        guidance = sums["guidance_T"] / tokens
        if self.guidance:
            losses = {**losses, "guidance": self.guidance * guidance}
        return losses, {**metrics, "guidance": guidance}


@dataclasses.dataclass(frozen=True)
class Supervised(TopK):
    """Top-k whose router is also trained to know the label; it routes without one.

    Expert e belongs to label e mod labels; with fewer experts than labels, labels share.

    Attributes:
      labels: number of labels.
      losses: with the weight of the guidance; balance is off, since labels are not balanced.
    """

    losses: GuidedLosses = GuidedLosses(load_balance=0.0)
    labels: Annotated[int, AtLeast(1)] = 5

    needs_labels: ClassVar[bool] = True

    def keys(self, id_BL, label_BL):
        """The labels, or -1 where there are none."""
        return jnp.full_like(id_BL, -1) if label_BL is None else label_BL

    def __call__(self, params, x_TD, id_T, E, rng):
        """Routes x_TD as top-k does; id_T are labels."""
        routing = super().__call__(params, x_TD, id_T, E, rng)
        logits_TE = self.compare(params, x_TD.astype(jnp.float32), rng)
        own_TE = owned(id_T, E, self.labels)
        inside_T = jax.nn.logsumexp(jnp.where(own_TE, logits_TE, -jnp.inf), axis=1)
        guidance_T = jax.nn.logsumexp(logits_TE, axis=1) - inside_T
        guidance_T = jnp.where(id_T < 0, 0, guidance_T)
        return dataclasses.replace(routing, terms={**routing.terms, "guidance_T": guidance_T})


@dataclasses.dataclass(frozen=True)
class Labelled(TopK):
    """Top-k among the experts of the token's label alone: the label replaces the router.

    Where a label has k experts nothing is left to choose. Gates are the scores over all experts,
    so they are learned all the same.

    Attributes:
      labels: number of labels.
      losses: none by default: labels are not balanced.
    """

    k: int = 1
    losses: Losses = Losses(load_balance=0.0)
    labels: Annotated[int, AtLeast(1)] = 5

    needs_labels: ClassVar[bool] = True

    def keys(self, id_BL, label_BL):
        """The labels."""
        if label_BL is None:
            raise Mistake("labelled: needs labels, and this batch has none")
        return label_BL

    def reachable(self, params, logits_TE, id_T):
        """The label's own experts; id_T are labels."""
        own_TE = owned(id_T, logits_TE.shape[1], self.labels)
        return jnp.where(own_TE, self.preference(params, logits_TE), -jnp.inf)

    def check(self, path, num_experts):
        """Raises Mistake unless every label has k experts and no groups, beside top_k's checks."""
        super().check(path, num_experts)
        self._refuse_groups(path, "the label says which experts a token may choose from")
        least = max(1, num_experts // self.labels)
        if self.k > least:
            raise Mistake(
                f"{path}.k={self.k}: must be at most {least}, the experts that each of "
                f"{self.labels} labels has of num_experts={num_experts}"
            )


def owned(label_T: jax.Array, E: int, labels: int) -> jax.Array:
    """Whether expert e belongs to the label of token t (bool, shape TE)."""
    cycle = min(labels, E)
    expert_E = jnp.arange(E, dtype=jnp.int32) % cycle
    return expert_E[None] == (label_T % cycle)[:, None]
