"""GShard's top-2 gate with a random second expert (Lepikhin et al. 2020, arXiv 2006.16668)."""

import dataclasses
from typing import cast

import jax
import jax.numpy as jnp

from moe.params import named
from moe.plan import Choices
from moe.registry import Mistake
from moe.routers.parts.losses import Losses
from moe.routers.top_k import TopK


@dataclasses.dataclass(frozen=True)
class GShard(TopK):
    """Two experts; in training the second is used with probability min(1, 2 g_2), algorithm 1.

    g_2 is the second gate over the sum of both, whatever `renormalize` and `scale` make of them.
    At evaluation both are used. The balance loss counts first choices, as in the paper. Costs count
    two experts, as at evaluation: in training 1.74 of them are used at step 0 with E = 8, so expert
    FLOPs are told 15 % too high there.
    """

    losses: Losses = Losses(load_balance=0.01, z_loss=0.0)

    def __call__(self, params, x_TD, id_T, E, rng):
        """Routes x_TD; a second choice that is not made is expert E with gate 0."""
        routing = super().__call__(params, x_TD, id_T, E, rng)
        if rng is None:
            return routing
        plan = cast(Choices, routing.plan)
        draw_T = jax.random.uniform(named(rng, "second expert"), (x_TD.shape[0],))
        gate_TK = jax.lax.stop_gradient(plan.gate_TK)
        keep_T = draw_T * gate_TK.sum(axis=1) < 2 * gate_TK[:, 1]
        keep_TK = jnp.stack([jnp.ones_like(keep_T), keep_T], axis=1)
        expert_TK = jnp.where(keep_TK, plan.expert_TK, E)
        plan = Choices(expert_TK, jnp.where(keep_TK, plan.gate_TK, 0))
        return dataclasses.replace(routing, plan=plan)

    def counted(self, logits, plan):
        """First choices alone."""
        return jax.nn.one_hot(plan.expert_TK[:, 0], logits.clean_TE.shape[1])

    def check(self, path, num_experts):
        """Raises Mistake unless k = 2, beside what top_k checks."""
        super().check(path, num_experts)
        if self.k != 2:
            raise Mistake(f"{path}.k={self.k}: must be 2 for gshard")
