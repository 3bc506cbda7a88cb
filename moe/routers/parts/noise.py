"""Noise in the router at training; none of it is there at evaluation (rng=None)."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Protocol

import jax
import jax.numpy as jnp

from moe.fields import Above, Within
from moe.params import Params


class Noise(Protocol):
    """Perturbs what the router reads or its logits; the experts never see it."""

    kind: ClassVar[str] = "noise"
    weighs: ClassVar[bool] = True  # the gates, too, come from the noisy logits
    gaussian: ClassVar[bool] = False  # has a deviation
    learned: ClassVar[bool] = False  # has parameters that the loss moves

    def init(self, D: int, E: int) -> Params:
        """Parameters of the noise, by default none."""
        del D, E
        return {}

    def products(self, D: int, E: int) -> int:
        """Multiply-adds per token of its own matrix products; none, unless said."""
        del D, E
        return 0

    def perturb_input(self, x_TD: jax.Array, rng: jax.Array) -> jax.Array:
        """What the router's matrix product reads in place of x_TD (float32)."""
        del rng
        return x_TD

    def deviation(self, params: Params, x_TD: jax.Array, E: int) -> jax.Array | None:
        """The standard deviation of Gaussian noise on the logits: shape TE or 1E, or None."""
        del params, x_TD, E
        return None

    def perturb_logits(
        self, logits_TE: jax.Array, deviation_TE: jax.Array | None, rng: jax.Array
    ) -> jax.Array:
        """The logits by which experts are chosen: Gaussian noise where there is a deviation."""
        if deviation_TE is None:
            return logits_TE
        return logits_TE + deviation_TE * jax.random.normal(rng, logits_TE.shape)


@dataclass(frozen=True)
class NoNoise(Noise):
    """Leaves everything as it is."""


@dataclass(frozen=True)
class LearnedNoise(Noise):
    """Gaussian with deviation softplus(x w), w from zero: Shazeer et al. (1701.06538) eq. 4."""

    gaussian: ClassVar[bool] = True
    learned: ClassVar[bool] = True

    def init(self, D, E):
        """Makes w_noise_DE = 0."""
        return {"w_noise_DE": jnp.zeros((D, E))}

    def products(self, D, E):
        """x w, of the deviation."""
        return D * E

    def deviation(self, params, x_TD, E):
        """softplus(x w) + 0.01, which keeps the smoothed load differentiable."""
        del E
        raw_TE = jnp.einsum("TD,DE->TE", x_TD, params["w_noise_DE"], precision="highest")
        return jax.nn.softplus(raw_TE) + 0.01


@dataclass(frozen=True)
class FixedNoise(Noise):
    """Gaussian with deviation scale / E: V-MoE (arXiv 2106.05974) section 2.2.

    Attributes:
      scale: deviation times the number of experts, > 0.
    """

    scale: Annotated[float, Above(0)] = 1.0

    gaussian: ClassVar[bool] = True

    def deviation(self, params, x_TD, E):
        """The constant, of shape 1E."""
        del params, x_TD
        return jnp.full((1, E), self.scale / E)


@dataclass(frozen=True)
class Gumbel(Noise):
    """Gumbel noise: choosing the largest draws experts from the softmax, without replacement."""

    weighs: ClassVar[bool] = False

    def perturb_logits(self, logits_TE, deviation_TE, rng):
        """Adds standard Gumbel noise."""
        del deviation_TE
        return logits_TE + jax.random.gumbel(rng, logits_TE.shape)


@dataclass(frozen=True)
class Jitter(Noise):
    """Multiplies what the router reads by U(1 - epsilon, 1 + epsilon): Switch (2101.03961).

    Attributes:
      epsilon: largest relative change.
    """

    epsilon: Annotated[float, Within(0, 1, "[)")] = 0.01

    def perturb_input(self, x_TD, rng):
        """Jitters every component of every token by itself."""
        low, high = 1 - self.epsilon, 1 + self.epsilon
        return x_TD * jax.random.uniform(rng, x_TD.shape, minval=low, maxval=high)
