"""Balance by a bias instead of a loss (Wang et al. 2024, arXiv 2408.15664; DeepSeek-V3).

A bias per expert is added to the scores before experts are chosen, and never weighs their
outputs. After each optimizer step the bias of overloaded experts goes down, that of the others
up. It is state: no gradient, no optimizer, in every checkpoint.
"""

import dataclasses
from typing import Annotated

import jax.numpy as jnp

from moe.fields import AtLeast
from moe.params import state, with_state
from moe.plan import Choices
from moe.routers.parts.losses import UNWEIGHTED, Losses
from moe.routers.parts.ranking import choose, choose_by_both
from moe.routers.parts.rules import Rule, Sign
from moe.routers.parts.scores import Score, Sigmoid
from moe.routers.top_k import TopK


@dataclasses.dataclass(frozen=True)
class LossFree(TopK):
    """Top-k of score + bias, weighed by the score alone.

    Attributes:
      score: sigmoid in the paper.
      renormalize: the paper's gates are the scores themselves; DeepSeek-V3's are renormalised.
      losses: only a sequence-wise load balance in DeepSeek-V3, nothing by default; it counts the
        choices that the scores would make without bias and groups (arXiv 2412.19437 eq. 17-20).
      rule: direction and size of a step of the bias.
      rate: size of a step; the paper finds 1e-3 best, 1e-4 too slow, 1e-2 oscillating.
      centred: subtract the mean of a step, so that biases keep their mean; choices do not change.
      rate_steps: steps after which the rate is 0 (DeepSeek-V3 ends so); 0 is never.
    """

    score: Score = Sigmoid()
    renormalize: bool = False
    epsilon: Annotated[float, AtLeast(0)] = 1e-20
    losses: Losses = UNWEIGHTED
    rule: Rule = Sign()
    rate: Annotated[float, AtLeast(0)] = 1e-3
    centred: bool = False
    rate_steps: Annotated[int, AtLeast(0, "0 is never")] = 0

    def init(self, key, D, E, V):
        """Makes w_DE and state.bias_E = 0."""
        params = super().init(key, D, E, V)
        return with_state(params, bias_E=jnp.zeros(E), step=jnp.zeros((), jnp.int32))

    def preference(self, params, logits_TE):
        """score + bias."""
        return self.score(logits_TE) + state(params)["bias_E"][None]

    def pair(self, best_R2):
        """Their sum."""
        return best_R2.sum(axis=-1)

    def assign(self, params, logits, id_T, rng):
        """The k best; logits decide where sums are equal, as where float32 has the score 1 or 0."""
        del rng
        preference_TE = self.reachable(params, logits.noisy_TE, id_T)
        return choose_by_both(preference_TE, logits.noisy_TE, self.k)

    def counted(self, logits, plan):
        """The k best scores where a loss weighs them, else the choices that were made."""
        if self.losses.load_balance:
            plan = Choices(choose(logits.clean_TE, self.k), plan.gate_TK)
        return super().counted(logits, plan)

    def update(self, params, load_E, stats):
        """Moves the bias by one step of the rule."""
        params = super().update(params, load_E, stats)
        bias_E, step = state(params)["bias_E"], state(params)["step"]
        change_E = self.rate * self.rule(load_E)
        if self.centred:
            change_E = change_E - change_E.mean()
        if self.rate_steps:
            change_E = jnp.where(step < self.rate_steps, change_E, 0)
        return with_state(params, bias_E=bias_E + change_E, step=step + 1)
