"""The mixture-of-experts layer: route, dispatch, apply the experts, combine."""

import dataclasses
import math
from typing import ClassVar

import flax.struct
import jax
import jax.numpy as jnp

from moe.devices import sharding
from moe.dispatch.contract import Dispatch, Stats, mix
from moe.dispatch.parallel import dispatch_here, serve
from moe.dispatch.ragged import Ragged
from moe.experts.contract import Experts
from moe.experts.feed_forward import SwiGLU
from moe.experts.null import NullExperts
from moe.experts.shared import SharedExpert
from moe.params import Params
from moe.plan import Choices, Mix, Plan, Slots, Tokens
from moe.registry import Mistake
from moe.routers.contract import Router
from moe.routers.parts.losses import Terms
from moe.routers.top_k import TopK


@flax.struct.dataclass
class Aux:
    """What one layer reports beside its output.

    Attributes:
      losses: name -> weighted scalar, to be added to the training loss.
      metrics: name -> scalar.
      sums: what the losses were made of, summed over the call, where their scope is the batch.
      stats: name -> what `Router.update` needs, summed over the call.
      counts: the dispatcher's statistics, summed over groups (slots_used averaged); load_E is
        that of all experts, null experts included.
      assigned_BLE: how many of each token's choices each expert got (float32).
    """

    losses: Terms
    metrics: Terms
    sums: Terms
    stats: Terms
    counts: Stats
    assigned_BLE: jax.Array


@dataclasses.dataclass(frozen=True)
class MoE:
    """Experts, a router that decides who, and a dispatcher that decides how.

    Attributes:
      num_experts: feed-forward experts.
      router: chooses experts for tokens, or tokens for experts; it also sees the null experts.
      dispatch: carries tokens to experts and back.
      experts: the networks.
      shared: one more network that reads every token, or none.
      null: experts that compute nothing, beside the others, or none.
    """

    kind: ClassVar[str] = "layer"
    splits_experts: ClassVar[bool] = True  # over devices, by number and by width

    num_experts: int = 8
    router: Router = TopK()
    dispatch: Dispatch = Ragged()
    experts: Experts = SwiGLU()
    shared: SharedExpert | None = None
    null: NullExperts | None = None

    @property
    def routed_experts(self) -> int:
        """E, what the router chooses from: feed-forward and null experts."""
        return self.num_experts + (self.null.count if self.null else 0)

    @property
    def tokenwise(self) -> bool:
        """Whether the tokens of one group of token choice can be served apart."""
        return self.dispatch.tokenwise

    def initializers(self, D: int, V: int) -> dict:
        """Name -> function from a key to the float32 parameters of that part."""
        makers = {
            "router": lambda key: self.router.init(key, D, self.routed_experts, V),
            "experts": lambda key: self.dispatch.hold(
                self.experts.init(key, self.num_experts, D), self.num_experts
            ),
        }
        if self.shared is not None:
            makers["shared"] = lambda key: self.shared.init(key, D)
        if self.null is not None:
            makers["null"] = lambda key: self.null.init(key, D)
        return makers

    def init(self, key: jax.Array, D: int, V: int) -> Params:
        """Makes all parameters; V is the vocabulary size."""
        makers = self.initializers(D, V)
        keys = jax.random.split(key, len(makers))
        return {name: make(keys[i]) for i, (name, make) in enumerate(makers.items())}

    def __call__(
        self,
        params: Params,
        x_BLD: jax.Array,
        tokens: Tokens | None = None,
        rng: jax.Array | None = None,
    ) -> tuple[jax.Array, Aux]:
        """Returns (y_BLD, Aux); rng=None is evaluation.

        Raises Mistake where there are no tokens and the router reads their ids or labels.
        """
        B, L, D = x_BLD.shape
        E, G = self.routed_experts, self.dispatch.groups(B * L)
        T = B * L // G
        lead = (T,) if G == 1 else (G, T)
        params = sharding.gathered(params)
        key = self._keys(tokens, (B, L)).reshape(lead)
        x = sharding.constrain(x_BLD.reshape(*lead, D), "TD" if G == 1 else "GTD")

        def route(x_TD, id_T, rng):
            routing = self.router(params["router"], x_TD, id_T, E, rng)
            return routing, routing.plan.assigned_TE(T, E)

        if G == 1:
            routing, assigned = route(x, key, rng)
            metrics, stats = routing.metrics, routing.stats
        else:
            rng_G = None if rng is None else jax.random.split(rng, G)
            routing, assigned = jax.vmap(route, (0, 0, None if rng is None else 0))(x, key, rng_G)
            metrics = jax.tree.map(lambda a: jnp.mean(a, axis=0), routing.metrics)
            stats = jax.tree.map(lambda a: jnp.sum(a, axis=0), routing.stats)
        served = {name: params[name] for name in ("experts", "null") if name in params}
        y, counts = serve(self._serve, served, routing.plan, x, G, self.tokenwise)
        assigned_BLE = assigned.reshape(B, L, E)
        terms = jax.tree.map(lambda a: a.reshape(B * L, *a.shape[1 + (G > 1) :]), routing.terms)
        losses, loss_metrics, sums = self._losses(terms, B, L, G)
        y_BLD = y.reshape(B, L, D)
        if self.shared is not None:
            y_BLD = y_BLD + self.shared(params["shared"], x_BLD)
        counts = counts.replace(load_E=assigned_BLE.sum(axis=(0, 1)))
        return y_BLD, Aux(losses, {**loss_metrics, **metrics}, sums, stats, counts, assigned_BLE)

    def _keys(self, tokens: Tokens | None, shape: tuple[int, int]) -> jax.Array:
        """What each token is routed by; zeros stand for ids that nobody reads."""
        if tokens is None and self.router.needs_ids:
            name = type(self.router).__name__
            raise Mistake(f"{name}: reads the tokens' ids, and there are none")
        tokens = Tokens(jnp.zeros(shape, jnp.int32)) if tokens is None else tokens
        return self.router.keys(tokens.id_BL, tokens.label_BL)

    def _serve(self, params: Params, plan: Plan, x_TD: jax.Array) -> tuple[jax.Array, Stats]:
        """Outputs of one group: the dispatcher's, and those of the null experts."""
        E, own = self.routed_experts, self.num_experts
        if self.null is None:
            return dispatch_here(self.dispatch, plan, x_TD, self.experts, params["experts"], E)
        y_TD, counts = dispatch_here(
            self.dispatch, _without_null(plan, own), x_TD, self.experts, params["experts"], own
        )
        T, D = x_TD.shape
        if isinstance(plan, Mix):
            rest = Mix(plan.dispatch_TEC[:, own:], plan.combine_TEC[:, own:])
            return y_TD + mix(rest, x_TD, self.null, params["null"]), counts
        y_ETD = self.null(params["null"], jnp.broadcast_to(x_TD, (E - own, T, D)))
        weight_TE = plan.weight_TE(T, E)[:, own:].astype(x_TD.dtype)
        return y_TD + jnp.einsum("TE,ETD->TD", weight_TE, y_ETD), counts

    def _losses(self, terms: Terms, B: int, L: int, G: int) -> tuple[Terms, Terms, Terms]:
        """Losses and metrics, averaged over pieces of their scope; sums if that is the batch."""
        scope = self.router.losses.scope
        pieces = {"sequence": B, "group": G, "device": _devices(B), "batch": 1}[scope]
        tokens = B * L // pieces
        sums = jax.tree.map(lambda a: a.reshape(pieces, tokens, *a.shape[1:]).sum(axis=1), terms)
        if pieces == 1:
            sums = jax.tree.map(lambda a: a[0], sums)
            return *self.router.losses(sums, tokens), sums if scope == "batch" else {}
        found = jax.vmap(lambda piece: self.router.losses(piece, tokens))(sums)
        return *jax.tree.map(lambda a: jnp.mean(a, axis=0), found), {}

    def check(self, path: str, tokens: int) -> None:
        """Raises Mistake, one line that starts with `path`, for impossible fields."""
        if self.num_experts < 1:
            raise Mistake(f"{path}.num_experts={self.num_experts}: must be >= 1")
        if self.experts.width < 1:
            raise Mistake(f"{path}.experts.width={self.experts.width}: must be >= 1")
        if self.shared is not None and self.shared.ffn.width < 1:
            raise Mistake(f"{path}.shared.ffn.width={self.shared.ffn.width}: must be >= 1")
        if self.null is not None:
            self.null.check(f"{path}.null")
        self.router.check(f"{path}.router", self.routed_experts)
        self.dispatch.check(f"{path}.dispatch", tokens)


def _devices(B: int) -> int:
    """Into how many parts the mesh in use splits a batch of B sequences."""
    return math.gcd(B, sharding.batch_parts())


def _without_null(plan: Plan, E: int) -> Plan:
    """The plan of the first E experts; choices of others are not made, or rather made elsewhere."""
    if isinstance(plan, Choices):
        own = plan.expert_TK < E
        return Choices(jnp.where(own, plan.expert_TK, E), jnp.where(own, plan.gate_TK, 0))
    if isinstance(plan, Slots):
        return Slots(plan.token_EC[:E], plan.gate_EC[:E])
    return Mix(plan.dispatch_TEC[:, :E], plan.combine_TEC[:, :E])
