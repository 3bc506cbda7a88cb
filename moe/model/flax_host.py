"""The pure MoE layer in Flax: a Linen module, which the transformer hosts, and an NNX module.

Both give routers that are fitted to a text the corpus as their parameters are made, and refuse
such routers without one.
"""

import jax
from flax import linen, nnx

from moe.data.counts import Corpus
from moe.model.layer import Aux, MoE
from moe.params import Params, merge_state, named, split_state, traced
from moe.plan import Tokens


class LinenMoE(linen.Module):
    """Owns the layer's parameters in collection "params" and calls it.

    Attributes:
      layer: the MoE layer, a frozen dataclass.
      vocab_size: size of the token ids' range, for routers that read them.
      corpus: of the training text, for routers that are fitted to it; their parameters are then
        made outside of jit.
    """

    layer: MoE
    vocab_size: int
    corpus: Corpus | None = None

    @linen.compact
    def __call__(
        self,
        x_BLD: jax.Array,
        tokens: Tokens | None = None,
        rng: jax.Array | None = None,
    ) -> tuple[jax.Array, Aux]:
        """Returns (y_BLD, Aux); rng=None is evaluation."""
        makers = self.layer.initializers(x_BLD.shape[-1], self.vocab_size)
        if not self.has_variable("params", "router"):  # where there is one, its shape alone counts
            make = makers["router"]
            makers["router"] = lambda key: self.fitted(make(key), key)
        params = {name: self.param(name, make) for name, make in makers.items()}
        return self.layer(params, x_BLD, tokens, rng)

    def fitted(self, router: Params, key: jax.Array) -> Params:
        """The router's new parameters, fitted to the corpus; see `MoE.fit`."""
        return _fitted(self.layer, {"router": router}, self.corpus, key)["router"]


class LaterFitted(LinenMoE):
    """The layer in a model that fits its routers itself, when all of them are made."""

    def fitted(self, router, key):
        """The parameters as they are."""
        del key
        return router


def _fitted(layer: MoE, params: Params, corpus: Corpus | None, key: jax.Array) -> Params:
    unread = corpus is None or traced(key)  # `MoE.fit` refuses, or has no use
    seed = 0 if unread else int(jax.random.bits(named(key, "fit")))
    return layer.fit(params, corpus, seed)


class State(nnx.Variable):
    """Leaves that no gradient moves: hash tables, selection biases."""


class NnxMoE(nnx.Module):
    """The layer for models written in Flax NNX; learned leaves are `nnx.Param`."""

    def __init__(
        self,
        layer: MoE,
        width: int,
        vocab_size: int,
        corpus: Corpus | None = None,
        *,
        rngs: nnx.Rngs,
    ):
        """Makes the parameters for inputs of the given model width.

        corpus: of the training text, for routers that are fitted to it; see `MoE.fit`.
        """
        self.layer, key = layer, rngs.params()
        params = _fitted(layer, layer.init(key, width, vocab_size), corpus, key)
        learned, fixed = split_state(params)
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
