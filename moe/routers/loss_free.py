"""Balance by a bias instead of a loss (Wang et al. 2024, arXiv 2408.15664; DeepSeek-V3).

A bias per expert is added to the scores before experts are chosen, and never weighs their
outputs. After each optimizer step the bias of overloaded experts goes down, that of the others
up. It is state: no gradient, no optimizer, in every checkpoint.
"""

import dataclasses

import jax.numpy as jnp

from moe.plan import Choices
from moe.registry import Mistake
from moe.routers.parts.losses import Losses, check_weight
from moe.routers.parts.ranking import choose
from moe.routers.parts.rules import Rule, Sign
from moe.routers.parts.scores import Score, Sigmoid
from moe.routers.top_k import TopK


@dataclasses.dataclass(frozen=True)
class LossFree(TopK):
    """Top-k of score + bias, weighed by the score alone.

    Attributes:
      score: sigmoid in the paper.
      losses: only a sequence-wise load balance in DeepSeek-V3, nothing by default; it counts the
        choices that the scores would make without bias and groups (arXiv 2412.19437 eq. 17-20).
      rule: direction and size of a step of the bias.
      rate: size of a step; the paper finds 1e-3 best, 1e-4 too slow, 1e-2 oscillating.
      centred: subtract the mean of a step, so that biases keep their mean; choices do not change.
      rate_steps: steps after which the rate is 0 (DeepSeek-V3 ends so); 0 is never.
    """

    score: Score = Sigmoid()
    epsilon: float = 1e-20
    losses: Losses = Losses(load_balance=0.0, z_loss=0.0)
    rule: Rule = Sign()
    rate: float = 1e-3
    centred: bool = False
    rate_steps: int = 0

    def init(self, key, D, E, V):
        """Makes w_DE and state.bias_E = 0."""
        params = super().init(key, D, E, V)
        state = params.get("state", {})
        bias = {"bias_E": jnp.zeros(E), "step": jnp.zeros((), jnp.int32)}
        return {**params, "state": {**state, **bias}}

    def preference(self, params, score_TE):
        """score + bias."""
        return score_TE + params["state"]["bias_E"][None]

    def counted(self, params, probability_TE, plan):
        """The k best scores where a loss weighs them, else the choices that were made."""
        if self.losses.load_balance:
            plan = Choices(choose(probability_TE, self.k), plan.gate_TK)
        return super().counted(params, probability_TE, plan)

    def update(self, params, load_E, stats):
        """Moves the bias by one step of the rule."""
        params = super().update(params, load_E, stats)
        state = params["state"]
        change_E = self.rate * self.rule(load_E)
        if self.centred:
            change_E = change_E - change_E.mean()
        if self.rate_steps:
            change_E = jnp.where(state["step"] < self.rate_steps, change_E, 0)
        moved = {"bias_E": state["bias_E"] + change_E, "step": state["step"] + 1}
        return {**params, "state": {**state, **moved}}

    def check(self, path, num_experts):
        """Raises Mistake for a bad rate, beside what top_k checks."""
        super().check(path, num_experts)
        check_weight(path, "rate", self.rate)
        if self.rate_steps < 0:
            raise Mistake(f"{path}.rate_steps={self.rate_steps}: must be >= 0 (0 is never)")
