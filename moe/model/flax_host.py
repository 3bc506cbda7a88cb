"""The pure MoE layer in Flax: a Linen module, which the transformer hosts, and an NNX module."""

import jax
from flax import linen, nnx

from moe.model.layer import Aux, MoE
from moe.params import merge_state, split_state
from moe.plan import Tokens


class LinenMoE(linen.Module):
    """Owns the layer's parameters in collection "params" and calls it.

    Attributes:
      layer: the MoE layer, a frozen dataclass.
      vocab_size: size of the token ids' range, for routers that read them.
    """

    layer: MoE
    vocab_size: int

    @linen.compact
    def __call__(
        self,
        x_BLD: jax.Array,
        tokens: Tokens | None = None,
        rng: jax.Array | None = None,
    ) -> tuple[jax.Array, Aux]:
        """Returns (y_BLD, Aux); rng=None is evaluation."""
        makers = self.layer.initializers(x_BLD.shape[-1], self.vocab_size)
        params = {name: self.param(name, make) for name, make in makers.items()}
        return self.layer(params, x_BLD, tokens, rng)


class State(nnx.Variable):
    """Leaves that no gradient moves: hash tables, selection biases."""


class NnxMoE(nnx.Module):
    """The layer for models written in Flax NNX; learned leaves are `nnx.Param`."""

    def __init__(self, layer: MoE, width: int, vocab_size: int, *, rngs: nnx.Rngs):
        """Makes the parameters for inputs of the given model width."""
        self.layer = layer
        learned, fixed = split_state(layer.init(rngs.params(), width, vocab_size))
        self.params, self.state = nnx.Param(learned), State(fixed)

    def __call__(
        self,
        x_BLD: jax.Array,
        tokens: Tokens | None = None,
        rng: jax.Array | None = None,
    ) -> tuple[jax.Array, Aux]:
        """Returns (y_BLD, Aux); rng=None is evaluation."""
        params = merge_state(self.params.get_value(), self.state.get_value())
        return self.layer(params, x_BLD, tokens, rng)
