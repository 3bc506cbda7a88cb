"""The mixture-of-experts layer: route, dispatch, apply the experts, combine."""

import dataclasses
import math
from typing import Annotated, Any, ClassVar

import flax.struct
import jax
import jax.numpy as jnp

from moe.data.counts import Corpus
from moe.devices import sharding
from moe.dispatch import parallel
from moe.dispatch.contract import Dispatch, Stats
from moe.dispatch.ragged import Ragged
from moe.experts.contract import Experts, Pool
from moe.experts.feed_forward import SwiGLU
from moe.experts.null import NullExperts
from moe.experts.shared import SharedExpert
from moe.fields import Above, AtLeast
from moe.model import gate_norm
from moe.params import Params, Size, state, traced
from moe.plan import Plan, Tokens
from moe.registry import Mistake
from moe.routers.contract import Router, Routing
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
        what tokens asked of all experts, null experts included, before router and dispatcher
        dropped any.
      assigned_BLE: how many assignments each token asked of each expert (float32).
      dropped_BL: how many of these were not served, by router or dispatcher (float32).
      seen: what an analysis puts beside it (`moe.model.watch`), else None.
    """

    losses: Terms
    metrics: Terms
    sums: Terms
    stats: Terms
    counts: Stats
    assigned_BLE: jax.Array
    dropped_BL: jax.Array
    seen: Any = None


@dataclasses.dataclass(frozen=True)
class MoE:
    """Experts, a router that decides who, and a dispatcher that decides how.

    A layer of another kind may say in `initializers` and `serve` what its experts are, and in
    `sizes` what of them a mesh splits.

    Attributes:
      num_experts: feed-forward experts.
      router: chooses experts for tokens, or tokens for experts; it also sees the null experts.
      dispatch: carries tokens to experts and back.
      experts: the networks.
      shared: one more network that reads every token, or none.
      null: experts that compute nothing, beside the others, or none.
      gate_norm: a constant factor of all gates, measured at step 0, gives the routed experts'
        output the rms of one expert's, as in a dense layer. Papers have none or another, and so is
        the default: with E = 8 the output starts at 0.40 of it for top-1, 0.75 for top-2 and 1 for
        hash, and with k even gates at 1 / sqrt(k), which DeepSeek-V2 (arXiv 2405.04434) and others
        mend by a `scale` of their own. "output_rms" among the metrics is what comes out.
      eval_capacity_factor: capacity factor of router and dispatcher at evaluation; none is that of
        training.
    """

    kind: ClassVar[str] = "layer"

    num_experts: Annotated[int, AtLeast(1)] = 8
    router: Router = TopK()
    dispatch: Dispatch = Ragged()
    experts: Experts = SwiGLU()
    shared: SharedExpert | None = None
    null: NullExperts | None = None
    gate_norm: bool = False
    eval_capacity_factor: Annotated[float, Above(0)] | None = None

    @property
    def routed_experts(self) -> int:
        """E, what the router chooses from: feed-forward and null experts."""
        return self.num_experts + (self.null.count if self.null else 0)

    def initializers(self, D: int, V: int) -> dict:
        """Name -> function from a key to the float32 parameters of that part."""
        makers = {
            "router": lambda key: self.router.init(key, D, self.routed_experts, V),
            "experts": lambda key: self.dispatch.hold(
                self.experts.init(key, self.num_experts, D), self.num_experts
            ),
        }
        shared, null = self.shared, self.null
        if shared is not None:
            makers["shared"] = lambda key: shared.init(key, D)
        if null is not None:
            makers["null"] = lambda key: null.init(key, D)
        if self.gate_norm:
            makers["gate_norm"] = lambda key: gate_norm.init(
                self.router, key, D, self.routed_experts, V
            )
        return makers

    def init(self, key: jax.Array, D: int, V: int) -> Params:
        """Makes all parameters, before `fit`; V is the vocabulary size."""
        makers = self.initializers(D, V)
        keys = jax.random.split(key, len(makers))
        return {name: make(keys[i]) for i, (name, make) in enumerate(makers.items())}

    def fit(self, params: Params, corpus: Corpus | None, seed: int) -> Params:
        """Adapts the router to the training text, once before step 0, on the host.

        Raises Mistake where the router needs a text and there is none, and inside of jit.
        """
        name = type(self.router).__name__
        if corpus is None and self.router.needs_corpus:
            raise Mistake(
                f"{name}: is fitted to the training text, and there is none; give "
                "corpus=moe.data.counts.Corpus(count_V, token_S)"
            )
        if corpus is None:
            return params
        if traced(params["router"]):
            raise Mistake(f"{name}: is fitted on the host; make its parameters outside of jit")
        router = self.router.fit(params["router"], self.routed_experts, corpus, seed)
        return {**params, "router": router}

    def __call__(
        self,
        params: Params,
        x_BLD: jax.Array,
        tokens: Tokens | None = None,
        rng: jax.Array | None = None,
    ) -> tuple[jax.Array, Aux]:
        """Returns (y_BLD, Aux); rng=None is evaluation.

        Raises Mistake where there are no tokens and the router reads their ids or labels, and where
        the mesh in use does not divide what it splits of the layer.
        """
        if rng is None and self.eval_capacity_factor is not None:
            return self.at_evaluation()(params, x_BLD, tokens)
        B, L, _ = x_BLD.shape
        sharding.check(self.sizes("model.moe", B * L))
        E, G = self.routed_experts, self.dispatch.groups(B * L)
        params = sharding.gathered(params)
        x, routing, (assigned, left) = self.route(params, x_BLD, tokens, rng)
        metrics, stats = routing.metrics, routing.stats
        if G > 1:
            metrics = jax.tree.map(lambda a: jnp.mean(a, axis=0), metrics)
            stats = jax.tree.map(lambda a: jnp.sum(a, axis=0), stats)
        y, counts = self._apply(params, routing.plan, x, G)
        if self.gate_norm:
            y = y * state(params["gate_norm"])["scale"].astype(y.dtype)
        assigned_BLE = assigned.reshape(B, L, E)
        terms = jax.tree.map(lambda a: a.reshape(B * L, *a.shape[1 + (G > 1) :]), routing.terms)
        if self.null is not None:
            terms = self.null.weigh(terms, self.num_experts)
        losses, loss_metrics, sums = self._losses(terms, B, L, G)
        y_BLD = y.reshape(x_BLD.shape)
        if self.shared is not None:
            y_BLD = y_BLD + self.shared(params["shared"], x_BLD)
        rms = jnp.sqrt(jnp.mean(jnp.square(jax.lax.stop_gradient(y_BLD).astype(jnp.float32))))
        counts = dataclasses.replace(counts, load_E=assigned_BLE.sum(axis=(0, 1)))
        dropped_BL = (left + counts.dropped_TK.sum(axis=-1)).reshape(B, L)
        metrics = {**loss_metrics, **metrics, "output_rms": rms}
        return y_BLD, Aux(losses, metrics, sums, stats, counts, assigned_BLE, dropped_BL)

    def route(
        self, params: Params, x_BLD: jax.Array, tokens: Tokens | None, rng: jax.Array | None
    ) -> tuple[jax.Array, Routing, tuple[jax.Array, jax.Array]]:
        """What the router reads, x, its answer, and `Routing.counts`; groups lead where several."""
        B, L, D = x_BLD.shape
        E, G = self.routed_experts, self.dispatch.groups(B * L)
        lead = (B * L,) if G == 1 else (G, B * L // G)
        key = self._keys(tokens, (B, L)).reshape(lead)
        x = sharding.constrain(x_BLD.reshape(*lead, D), "TD" if G == 1 else "GTD")

        def route(x_TD, id_T, rng):
            routing = self.router(params["router"], x_TD, id_T, E, rng)
            return routing, routing.counts(lead[-1], E)

        if G == 1:
            return x, *route(x, key, rng)
        rng_G = None if rng is None else jax.random.split(rng, G)
        return x, *jax.vmap(route, (0, 0, None if rng is None else 0))(x, key, rng_G)

    def at_evaluation(self) -> "MoE":
        """The layer with the capacity that it has at evaluation."""
        factor = self.eval_capacity_factor
        return self if factor is None else self._with_capacity(factor)

    def _with_capacity(self, factor: float) -> "MoE":
        router, dispatch = (part.with_capacity(factor) for part in (self.router, self.dispatch))
        return dataclasses.replace(
            self, router=router, dispatch=dispatch, eval_capacity_factor=None
        )

    def causal(self, tokens: int, devices: int = 1) -> bool:
        """Whether at evaluation no output depends on later tokens of its own sequence.

        A property of router, dispatcher and k together, in calls of that many tokens whose experts
        are spread over that many devices; see `Dispatch.causal` for what it promises.
        """
        layer = self.at_evaluation()
        return layer.router.causal and layer.serves_in_order(tokens, devices)

    def causal_in_training(self, tokens: int, devices: int = 1) -> bool:
        """The same of training."""
        return self.router.causal_in_training and self.serves_in_order(tokens, devices)

    def serves_in_order(self, tokens: int, devices: int) -> bool:
        """Whether what is dropped of a causal plan does not depend on later tokens."""
        group = tokens // self.dispatch.groups(tokens)
        ranks = self.router.ranks(self.routed_experts)
        return self.dispatch.causal(ranks, group, self.num_experts, devices)

    def _keys(self, tokens: Tokens | None, shape: tuple[int, int]) -> jax.Array:
        """What each token is routed by; zeros stand for ids that nobody reads."""
        if tokens is None and self.router.needs_ids:
            name = type(self.router).__name__
            raise Mistake(f"{name}: reads the tokens' ids, and there are none")
        tokens = Tokens(jnp.zeros(shape, jnp.int32)) if tokens is None else tokens
        return self.router.keys(tokens.id_BL, tokens.label_BL)

    def serve(
        self, params: Params, plan: Plan, x: jax.Array, groups: int
    ) -> tuple[jax.Array, Stats]:
        """What the experts with these params make of x, by the plan, and how they were reached.

        Args:
          plan, x: with a leading axis of groups where there are several; the plan knows no null
            experts.
        """
        pool = Pool(params, self.experts, self.num_experts)
        return parallel.serve(self.dispatch, plan, x, pool, groups)

    def _apply(self, params: Params, plan: Plan, x: jax.Array, G: int) -> tuple[jax.Array, Stats]:
        """Outputs of all routed experts: null experts add theirs to what is served."""
        null = self.null
        if null is None:
            return self.serve(params["experts"], plan, x, G)
        y, counts = self.serve(params["experts"], plan.first(self.num_experts), x, G)

        def of_group(plan, x_TD):
            return null.serve(params["null"], plan, x_TD, self.num_experts)

        return y + (of_group if G == 1 else jax.vmap(of_group))(plan, x), counts

    def _losses(self, terms: Terms, B: int, L: int, G: int) -> tuple[Terms, Terms, Terms]:
        """Losses and metrics, averaged over pieces of their scope; sums if that is the batch."""
        scope = self.router.losses.scope
        parts = math.gcd(B, sharding.batch_parts())  # of the batch, on the mesh in use
        pieces = {"sequence": B, "group": G, "device": parts, "batch": 1}[scope]
        tokens = B * L // pieces
        sums = jax.tree.map(lambda a: a.reshape(pieces, tokens, *a.shape[1:]).sum(axis=1), terms)
        if pieces == 1:
            sums = jax.tree.map(lambda a: a[0], sums)
            return *self.router.losses(sums, tokens), sums if scope == "batch" else {}
        found = jax.vmap(lambda piece: self.router.losses(piece, tokens))(sums)
        return *jax.tree.map(lambda a: jnp.mean(a, axis=0), found), {}

    def sizes(self, path: str, tokens: int) -> tuple[Size, ...]:
        """What a mesh splits, in calls of that many tokens."""
        E, shared = self.num_experts, self.shared
        held = self.dispatch.copies(E)
        what = f"{path}.num_experts={E}" + (f": {held} networks" if held != E else "")
        return (
            Size(what, "E", held),
            *self.experts.sizes(f"{path}.experts"),
            *(() if shared is None else shared.sizes(f"{path}.shared")),
            *self.dispatch.sizes(f"{path}.dispatch", tokens),
        )

    def check(self, path: str, tokens: int) -> None:
        """Raises Mistake, one line that starts with `path`, for impossible fields."""
        if self.null is not None:
            self.null.check(f"{path}.null")
        self.router.check(f"{path}.router", self.routed_experts)
        if self.gate_norm and self.router.mixes:
            name = type(self.router).__name__
            raise Mistake(f"{path}.gate_norm=True: must be False with router={name}, which mixes")
        self.dispatch.check(f"{path}.dispatch", tokens)
        factor = self.eval_capacity_factor
        if factor is not None and self._with_capacity(factor) == self._with_capacity(2 * factor):
            raise Mistake(
                f"{path}.eval_capacity_factor={factor}: must be none where neither "
                f"router={type(self.router).__name__} nor dispatch={type(self.dispatch).__name__} "
                "has a capacity_factor"
            )
