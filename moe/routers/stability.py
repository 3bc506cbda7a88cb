"""Routers that differ only in when they change: never, at every step, or until a given step.

The stability factorial of Fan, Messmer and Jaggi (arXiv 2402.13089) and the second stage of
StableMoE (arXiv 2204.08396). Each is top-k in everything else.
"""

import dataclasses
from typing import Annotated

import jax
import jax.numpy as jnp

from moe.fields import AtLeast
from moe.params import Params, named, split_state, state, with_state
from moe.routers.parts.losses import UNWEIGHTED, Losses
from moe.routers.parts.ranking import init_matrix
from moe.routers.top_k import TopK


@dataclasses.dataclass(frozen=True)
class Frozen(TopK):
    """A random projection fixed at step 0; the gates still follow the hidden state.

    The projection alone is fixed: noise that learns its deviation does, and an adaptive loss
    weight follows the load.
    """

    losses: Losses = UNWEIGHTED

    @property
    def learned(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The projection never is; the noise may be."""
        return self.noise.learned

    def init(self, key, D, E, V):
        """Makes state.w_DE, which nothing moves, and what top-k makes beside it."""
        params = super().init(key, D, E, V)
        w_DE = params.pop("w_DE")
        return with_state(params, w_DE=w_DE)

    def weights(self, params, rng):
        """The projection of step 0."""
        del rng
        return state(params)["w_DE"]


@dataclasses.dataclass(frozen=True)
class Redrawn(Frozen):
    """A new random projection at every training step; evaluation uses that of step 0."""

    def weights(self, params, rng):
        """Draws w_DE anew, from the rng of the step and the layer."""
        w_DE = super().weights(params, rng)
        if rng is None:
            return w_DE
        D, E = w_DE.shape
        return init_matrix(named(rng, "projection"), D, E, self.init_scale)


@dataclasses.dataclass(frozen=True)
class LearnedThenFrozen(TopK):
    """Top-k until step `learn_steps`; from then on the router keeps the weights of that step.

    StableMoE distils its first stage into a router on word embeddings; here the router itself is
    kept. The balance loss ends with the first stage, as there.

    Attributes:
      learn_steps: length of the first stage, in optimizer steps.
    """

    learn_steps: Annotated[int, AtLeast(1)] = 100

    def init(self, key, D, E, V):
        """Makes w_DE and what noise learns, and their frozen copy and the step count in state."""
        params = super().init(key, D, E, V)
        return with_state(params, **_learned(params), step=jnp.zeros((), jnp.int32))

    def _learning(self, params) -> jax.Array:
        return state(params)["step"] < self.learn_steps

    def _in_use(self, params: Params) -> Params:
        """What is learned, or the frozen copy."""
        learning, kept = self._learning(params), state(params)
        learned = _learned(params)
        return {name: jnp.where(learning, learned[name], kept[name]) for name in learned}

    def weights(self, params, rng):
        """The weights that are learned, or the frozen copy."""
        del rng
        return self._in_use(params)["w_DE"]

    def logits(self, params, x_TD, rng):
        """Those of top-k; the noise is frozen with the weights."""
        return super().logits({**params, **self._in_use(params)}, x_TD, rng)

    def loss_weight(self, params):
        """0 in the second stage."""
        return super().loss_weight(params) * self._learning(params)

    def update(self, params, load_E, stats):
        """Counts the step; while learning, copies the weights."""
        params = super().update(params, load_E, stats)
        return with_state(params, **self._in_use(params), step=state(params)["step"] + 1)


def _learned(params: Params) -> Params:
    return split_state(params)[0]
