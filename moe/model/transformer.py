"""A decoder-only transformer, dense or with mixture-of-experts layers, as a Flax Linen module.

Pre-norm blocks with RMSNorm (arXiv 1910.07467), scanned over depth.
"""

import dataclasses
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from moe.data.counts import Corpus
from moe.devices import sharding
from moe.experts.contract import Experts, apply_one
from moe.experts.feed_forward import SwiGLU
from moe.fields import AtLeast, Within
from moe.model.attention import Attention
from moe.model.depth import Reports, in_depth_order, map_routers
from moe.model.flax_host import LaterFitted
from moe.model.layer import Aux, MoE
from moe.model.token_vectors import TokenVectors
from moe.params import Params, Size
from moe.plan import Tokens
from moe.registry import Mistake
from moe.routers.contract import Router
from moe.routers.layout import Layout


class DenseFFN(nn.Module):
    """A dense feed-forward layer: one expert that reads every token."""

    experts: Experts

    @nn.compact
    def __call__(self, x_BLD: jax.Array) -> jax.Array:
        """Returns y_BLD."""
        params = self.param("experts", self.experts.init, 1, x_BLD.shape[-1])
        params = sharding.gathered(params)
        return apply_one(self.experts, params, x_BLD)


class Block(nn.Module):
    """Attention and a feed-forward layer, each behind a norm and beside a residual path."""

    attention: Attention
    ffn: Experts
    moe: MoE | None  # None: the feed-forward layer is dense
    token_vectors: TokenVectors | None
    num_layers: int
    vocab_size: int

    @nn.compact
    def __call__(
        self,
        x_BLD: jax.Array,
        tokens: Tokens,
        rng: jax.Array | None,
    ) -> tuple[jax.Array, Aux | None]:
        """Returns x_BLD for the next block, and what an MoE layer reports."""
        D, dtype = x_BLD.shape[-1], x_BLD.dtype
        normed_BLD = nn.RMSNorm(dtype=dtype, name="attention_norm")(x_BLD)
        attention = self.param("attention", self.attention.init, D, self.num_layers)
        x_BLD = x_BLD + self.attention(sharding.gathered(attention), normed_BLD)
        if self.token_vectors is not None:
            vectors = self.param("token_vectors", self.token_vectors.init, self.vocab_size, D)
            x_BLD = self.token_vectors(sharding.gathered(vectors), x_BLD, tokens.id_BL)
        x_BLD = sharding.constrain(x_BLD, "BLD")
        normed_BLD = nn.RMSNorm(dtype=dtype, name="ffn_norm")(x_BLD)
        if self.moe is None:
            x_BLD = x_BLD + DenseFFN(self.ffn, name="ffn")(normed_BLD)
            return sharding.constrain(x_BLD, "BLD"), None
        host = LaterFitted(self.moe, self.vocab_size, name="moe")
        y_BLD, aux = host(normed_BLD, tokens, rng)
        return sharding.constrain(x_BLD + y_BLD, "BLD"), aux


class Period(nn.Module):
    """The shortest run of layers that repeats over depth: the unit of the scan."""

    attention: Attention
    ffn: Experts
    moes: tuple[MoE | None, ...]
    token_vectors: TokenVectors | None
    num_layers: int
    vocab_size: int

    @nn.compact
    def __call__(
        self,
        x_BLD: jax.Array,
        tokens: Tokens,
        rng: jax.Array | None,
    ) -> tuple[jax.Array, tuple[Aux, ...]]:
        """Returns x_BLD and the reports of the period's MoE layers."""
        rngs = [None] * len(self.moes) if rng is None else jax.random.split(rng, len(self.moes))
        reports = []
        for p, moe in enumerate(self.moes):
            block = Block(
                attention=self.attention,
                ffn=self.ffn,
                moe=moe,
                token_vectors=self.token_vectors,
                num_layers=self.num_layers,
                vocab_size=self.vocab_size,
                name=f"block{p}",
            )
            x_BLD, aux = block(x_BLD, tokens, rngs[p])
            reports += [] if aux is None else [aux]
        return x_BLD, tuple(reports)


def _rematerialized(period: type[nn.Module], remat: str) -> type[nn.Module]:
    if remat == "none":
        return period
    kept = jax.checkpoint_policies.dots_with_no_batch_dims_saveable if remat == "dots" else None
    return nn.remat(period, prevent_cse=False, policy=kept)


class Transformer(nn.Module):
    """A decoder-only language model; the tree of modules is the model's whole configuration.

    Attributes:
      vocab_size, num_layers, model_width: V, N, D.
      attention: the attention of every layer.
      ffn: the feed-forward network of the dense layers.
      moe: the mixture-of-experts layer, or None for a dense model.
      moe_layers: which layers (from 0) hold it; () exactly when moe is None.
      layout: gives some of them another router, or none for the same in all.
      token_vectors: a learned vector of each token id in every layer, or none.
      tied_head: the output projection is the embedding, transposed.
      dtype: of activations and matrix products; parameters, norms, router and logits stay float32.
      remat: what the backward pass computes again, to save memory: "none"; "period", all of each
        period of layers; "dots", all but the plain matrix products.
      unroll: periods in one step of the scan over depth.
    """

    vocab_size: int = 2048
    num_layers: Annotated[int, Within(1, 4096)] = 4
    model_width: Annotated[int, AtLeast(1)] = 128
    attention: Attention = Attention()
    ffn: Experts = SwiGLU()
    moe: MoE | None = None
    moe_layers: tuple[int, ...] = ()
    layout: Layout | None = None
    token_vectors: TokenVectors | None = None
    tied_head: bool = True
    dtype: Literal["float32", "bfloat16"] = "float32"
    remat: Literal["none", "dots", "period"] = "none"
    unroll: Annotated[int, AtLeast(1)] = 1

    @property
    def sparse(self) -> MoE:
        """Its MoE layer; raises Mistake where there is none."""
        if self.moe is None:
            raise Mistake("model.moe=none: this needs a model with experts")
        return self.moe

    @property
    def routers(self) -> tuple[Router, ...]:
        """The router of each MoE layer, in depth."""
        count = len(self.moe_layers)
        if self.layout is None:
            return (self.sparse.router,) * count if count else ()
        return tuple(self.layout.router(n, count, self.sparse.router) for n in range(count))

    @property
    def moes(self) -> tuple[MoE | None, ...]:
        """The MoE layer (or None) at each place of the shortest pattern that fills the depth."""
        N, own = self.num_layers, dict(zip(self.moe_layers, self.routers, strict=True))
        moes = [
            dataclasses.replace(self.sparse, router=own[n]) if n in own else None for n in range(N)
        ]
        return next(
            tuple(moes[:p]) for p in range(1, N + 1) if N % p == 0 and moes == moes[:p] * (N // p)
        )

    def causal(self, tokens: int, devices: int = 1) -> bool:
        """Whether at evaluation no logit depends on later tokens; see `MoE.causal`."""
        return all(moe is None or moe.causal(tokens, devices) for moe in self.moes)

    def causal_in_training(self, tokens: int, devices: int = 1) -> bool:
        """The same of training."""
        return all(moe is None or moe.causal_in_training(tokens, devices) for moe in self.moes)

    @nn.compact
    def __call__(
        self, tokens: Tokens, rng: jax.Array | None = None
    ) -> tuple[jax.Array, Reports | None]:
        """Returns logits_BLV (float32) and what the MoE layers report, or None when dense.

        rng=None is evaluation: no router noise, deterministic.
        """
        V, D, moes = self.vocab_size, self.model_width, self.moes
        embedding_VD = self.param("embedding_VD", nn.initializers.normal(D**-0.5), (V, D))
        embedding_VD = sharding.gathered({"embedding_VD": embedding_VD})["embedding_VD"]
        x_BLD = (jnp.take(embedding_VD, tokens.id_BL, axis=0) * D**0.5).astype(self.dtype)
        x_BLD = sharding.constrain(x_BLD, "BLD")
        scan_length = self.num_layers // len(moes)
        in_axes: Any = (nn.broadcast, nn.broadcast if rng is None else 0)
        layers = nn.scan(
            _rematerialized(Period, self.remat),
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=in_axes,
            length=scan_length,
            unroll=min(self.unroll, scan_length),
        )(self.attention, self.ffn, moes, self.token_vectors, self.num_layers, V, name="layers")
        rng_N = None if rng is None else jax.random.split(rng, scan_length)
        x_BLD, places = layers(x_BLD, tokens, rng_N)
        x_BLD = nn.RMSNorm(dtype=x_BLD.dtype, name="final_norm")(x_BLD)
        if self.tied_head:
            head_DV = embedding_VD.T
        else:
            head_DV = self.param("head_DV", nn.initializers.normal(D**-0.5), (D, V))
            head_DV = sharding.gathered({"head_DV": head_DV})["head_DV"]
        logits_BLV = jnp.einsum(
            "BLD,DV->BLV", x_BLD, head_DV.astype(x_BLD.dtype), preferred_element_type=jnp.float32
        )
        return sharding.constrain(logits_BLV, "BLV"), in_depth_order(places)

    def fit(self, params: Params, corpus: Corpus | None, seed: int) -> Params:
        """Adapts the router of each MoE layer to the training text; what `init` makes needs it.

        Once before step 0, outside of jit. Raises Mistake where a router needs a text and there
        is none; see `moe.model.layer.MoE.fit`.
        """
        if self.moe is None:
            return params
        layers = [dataclasses.replace(self.moe, router=router) for router in self.routers]

        def fit(router, n):
            return layers[n].fit({"router": router}, corpus, 1000 * seed + n)["router"]

        return map_routers(params, fit)

    def sizes(self, path: str, tokens: int) -> tuple[Size, ...]:
        """What a mesh splits, in calls of that many tokens."""
        D, V, dense = self.model_width, self.vocab_size, len(self.moe_layers) < self.num_layers
        return (
            Size(f"{path}.model_width={D}", "D", D),
            Size(f"{path}.vocab_size={V}", "V", V),
            *self.attention.sizes(f"{path}.attention"),
            *(self.ffn.sizes(f"{path}.ffn") if dense else ()),
            *(() if self.moe is None else self.moe.sizes(f"{path}.moe", tokens)),
        )

    def check(self, path: str, tokens: int) -> None:
        """Raises Mistake, one line with the dotted path, for impossible fields.

        tokens: what one call of the model sees, for dispatchers that group them.
        """
        self.attention.check(f"{path}.attention")
        layers = self.moe_layers
        wrong = [n for n in layers if not 0 <= n < self.num_layers]
        if wrong or list(layers) != sorted(set(layers)):
            raise Mistake(
                f"{path}.moe_layers={layers}: must be rising layer numbers in "
                f"[0, num_layers={self.num_layers})"
            )
        if (self.moe is None) != (not layers):
            raise Mistake(f"{path}.moe_layers={layers}: must be () exactly when {path}.moe is none")
        if self.moe is not None:
            self.moe.check(f"{path}.moe", tokens)
        if self.layout is not None:
            if self.moe is None:
                raise Mistake(f"{path}.layout: must be none when {path}.moe is none")
            self.layout.check(f"{path}.layout", len(layers), self.moe.routed_experts)


def forward(
    model: Transformer, params: Params, tokens: Tokens, rng: jax.Array | None = None
) -> tuple[jax.Array, Reports | None]:
    """logits_BLV and reports of a model with these parameters, as its `__call__` returns them."""
    outputs: Any = model.apply({"params": params}, tokens, rng)
    return outputs
