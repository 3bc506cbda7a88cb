"""Auxiliary router losses as functions of sums over tokens, so that any split of them is exact.

A router returns numerators token by token (`Losses.terms`); the layer adds them up over the scope
and `Losses.__call__` divides once. Sums over microbatches or devices therefore give the loss and
the gradient of the whole batch. `moe/convert/conventions.py` translates published coefficients.
"""

import dataclasses
from typing import Annotated, Literal, cast

import jax
import jax.numpy as jnp

from moe.fields import AtLeast
from moe.routers.parts.ranking import unit

Terms = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class Adaptive:
    """Raises the load-balance weight while the load is too uneven, lowers it while it is even.

    log weight += rate * (1[violation > high] - 1[violation < low]), once per optimizer step;
    violation is max_e load_e / mean load - 1; without any load the weight rests. A control of our
    own with the form that AXLearn's adaptive loss has.

    Attributes:
      rate: change of the logarithm in one step.
      low, high: the band of the violation in which the weight rests.
    """

    rate: float = 0.01
    low: float = 0.1
    high: float = 0.5

    def update(self, log_weight: jax.Array, load_E: jax.Array) -> jax.Array:
        """The logarithm of the factor for the next step."""
        mean = load_E.mean()
        violation = load_E.max() / jnp.where(mean > 0, mean, 1) - 1
        up, down = violation > self.high, (violation < self.low) & (mean > 0)
        return log_weight + self.rate * (up.astype(jnp.float32) - down.astype(jnp.float32))


@dataclasses.dataclass(frozen=True)
class Losses:
    """Weights of the auxiliary losses, and over which tokens their counts are taken.

    Attributes:
      load_balance: Switch's loss (arXiv 2101.03961 eq. 4-6), 1 at balance for every k.
      z_loss: mean squared logsumexp of the logits, ST-MoE (arXiv 2202.08906) eq. 5.
      importance: squared coefficient of variation of the summed probabilities, without noise as
        in V-MoE (arXiv 2106.05974); Shazeer et al. (1701.06538) eq. 6-7 sum the noisy gates
        (0.22 where this is 0.17, see docs/parts.md).
      load: the same of the smoothed load, Shazeer et al. appendix A; needs noise with a
        standard deviation.
      orthogonality: half the mean |cos| between router columns of different experts.
      scope: the tokens over which a loss is formed before it is averaged: each sequence, each
        group of the dispatcher, each device's part of a microbatch, or the whole batch over
        devices and microbatches.
      adaptive: how the load-balance weight follows the load; none keeps it.
    """

    load_balance: Annotated[float, AtLeast(0)] = 0.01
    z_loss: Annotated[float, AtLeast(0)] = 0.001
    importance: Annotated[float, AtLeast(0)] = 0.0
    load: Annotated[float, AtLeast(0)] = 0.0
    orthogonality: Annotated[float, AtLeast(0)] = 0.0
    scope: Literal["sequence", "group", "device", "batch"] = "batch"
    adaptive: Adaptive | None = None

    def terms(
        self,
        logits_TE: jax.Array,
        probability_TE: jax.Array,
        count_TE: jax.Array,
        selected_TE: jax.Array | None = None,
        w_DE: jax.Array | None = None,
        weight: jax.Array | float = 1.0,
    ) -> Terms:
        """Numerators, each with a leading token axis.

        Over budget: each is one quantity of a router, and most routers have three.

        Args:
          logits_TE: for the z-loss.
          probability_TE: rows that sum to 1.
          count_TE: assignments, before drops; carries no gradient.
          selected_TE: chance that the noise selects an expert, for `load`.
          w_DE: router columns, for `orthogonality`.
          weight: factor of the load-balance loss, the same for all tokens.
        """
        T = logits_TE.shape[0]
        found = {
            "count_TE": jax.lax.stop_gradient(count_TE.astype(jnp.float32)),
            "probability_TE": probability_TE,
            "z_T": jnp.square(jax.nn.logsumexp(logits_TE, axis=-1)),
            "weight_T": jnp.broadcast_to(jnp.asarray(weight, jnp.float32), (T,)),
        }
        if self.load:
            found["selected_TE"] = cast(jax.Array, selected_TE)
        if self.orthogonality:
            found["overlap_T"] = jnp.broadcast_to(overlap(cast(jax.Array, w_DE)), (T,))
        return found

    def __call__(self, sums: Terms, tokens: int) -> tuple[Terms, Terms]:
        """Weighted losses, and metrics, of terms that were summed over `tokens` tokens.

        A loss of weight 0 is left out: 0 times a number that is not finite is none either.
        """
        balance = load_balance(sums["count_TE"], sums["probability_TE"], tokens)
        z = sums["z_T"] / tokens
        weight = jax.lax.stop_gradient(sums["weight_T"] / tokens)
        losses = {}
        if self.load_balance:
            losses["load_balance"] = self.load_balance * weight * balance
        if self.z_loss:
            losses["z_loss"] = self.z_loss * z
        if self.importance:
            losses["importance"] = self.importance * cv_squared(sums["probability_TE"])
        if self.load:
            losses["load"] = self.load * cv_squared(sums["selected_TE"])
        if self.orthogonality:
            losses["orthogonality"] = self.orthogonality * sums["overlap_T"] / tokens
        return losses, {"load_balance": balance, "z_loss": z}


UNWEIGHTED = Losses(load_balance=0.0, z_loss=0.0)


@dataclasses.dataclass(frozen=True)
class NoLosses:
    """The losses of a router that has none."""

    scope: Literal["batch"] = "batch"

    def __call__(self, sums: Terms, tokens: int) -> tuple[Terms, Terms]:
        """Nothing."""
        del sums, tokens
        return {}, {}


def load_balance(
    count_E: jax.Array, probability_E: jax.Array, tokens: int | jax.Array
) -> jax.Array:
    """E * sum_e f_e P_e, which is 1 at perfect balance for every K.

    Switch (arXiv 2101.03961) eq. 4-6 with f normalised to sum to 1 over experts: papers that let
    f sum to K report K times this value. f carries no gradient.

    Args:
      count_E: assignments per expert over the scope (device, batch, ...), before drops.
      probability_E: router probabilities summed over the same tokens.
      tokens: the number of those tokens.
    """
    E = count_E.shape[-1]
    f_E = jax.lax.stop_gradient(count_E / jnp.maximum(count_E.sum(-1, keepdims=True), 1))
    return E * jnp.sum(f_E * probability_E / tokens, axis=-1)


def cv_squared(sum_E: jax.Array) -> jax.Array:
    """Squared coefficient of variation over experts: population variance over squared mean."""
    mean = sum_E.mean()
    ratio_E = sum_E / jnp.where(mean == 0, 1, mean)
    return jnp.mean(jnp.square(ratio_E - ratio_E.mean()))


def overlap(w_DE: jax.Array) -> jax.Array:
    """Half the mean of |cos(w_i, w_j) - 1[i = j]| over all pairs of columns."""
    unit_DE = unit(w_DE, axis=0)
    cos_EE = jnp.einsum("DE,DO->EO", unit_DE, unit_DE)
    return 0.5 * jnp.mean(jnp.abs(cos_EE - jnp.eye(w_DE.shape[1])))
