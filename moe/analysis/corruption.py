"""Routers that change the choices of a trained one, at evaluation, in the layers that are told.

V-MoE replaces one router at a time by chance (arXiv 2106.05974, appendix E), LibMoE takes the next
best experts (2411.00918), EMO keeps a subset of them (2605.06663). Which layers are meant is data,
so one compiled program serves all; `moe.analysis.interventions` measures what each costs.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from moe.params import Params, mixed, state, with_state
from moe.plan import Choices
from moe.registry import Mistake
from moe.routers.contract import Router, Routing
from moe.routers.layout import Layout
from moe.routers.parts.ranking import choose
from moe.routers.top_k import TopK


@dataclasses.dataclass(frozen=True)
class Corrupted(Router):
    """The router of a trained model, of which some layers are corrupted; here, none.

    Gates stay in their order: the j-th choice has the gate of the trained router's j-th choice,
    so that who serves alone is changed. Losses and metrics of the router are left out. Its
    parameters are {"trained": those of the router, "state": `on` and those of the intervention}.

    Attributes:
      trained: the router; token choice only.
    """

    learned: ClassVar[bool] = False
    batch_invariant: ClassVar[bool] = False

    trained: Router = TopK()

    @property
    def needs_ids(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Always: the trained router's, and those of chance."""
        return True

    @property
    def needs_labels(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """As the trained router."""
        return self.trained.needs_labels

    def init(self, key, D, E, V):
        """Makes an untrained router's parameters, corrupted in no layer."""
        trained = self.trained.init(key, D, E, V)
        return with_state({"trained": trained}, on=jnp.asarray(False), **self.arrays(E, 0))

    def keys(self, id_BL, label_BL):
        """As the trained router."""
        return self.trained.keys(id_BL, label_BL)

    def choices(self, E, T):
        """As the trained router."""
        return self.trained.choices(E, T)

    def ranks(self, E):
        """As many as there are choices: an intervention may name an expert twice."""
        return max(1, round(self.trained.choices(E, 1)))

    def arrays(self, E: int, n: int) -> dict[str, jax.Array]:
        """What the intervention needs in MoE layer n, unless it is given."""
        del E, n
        return {}

    def __call__(self, params, x_TD, id_T, E, rng):
        """Routes x_TD as trained, and otherwise where `on` says so."""
        plan = self.trained(params["trained"], x_TD, id_T, E, rng).plan
        if not isinstance(plan, Choices):
            raise Mistake(
                f"{type(self.trained).__name__}: cannot be corrupted: returns "
                f"{type(plan).__name__}, and interventions are made for token choice"
            )
        other = self.corrupt(params, plan, (x_TD, id_T), E)
        on = state(params)["on"]
        return Routing(jax.tree.map(lambda a, b: jnp.where(on, a, b), other, plan))

    def corrupt(
        self, params: Params, plan: Choices, tokens: tuple[jax.Array, jax.Array], E: int
    ) -> Choices:
        """The plan instead of the trained one, of as many choices.

        Args:
          tokens: x_TD and id_T, what the trained router saw.
        """
        del params, tokens, E
        return plan


@dataclasses.dataclass(frozen=True)
class Silent(Corrupted):
    """No expert serves: what the whole layer is worth, to normalise the others by."""

    def corrupt(self, params, plan, tokens, E):
        """Makes no choice."""
        return plan.only(jnp.zeros(plan.expert_TK.shape, bool), E)


@dataclasses.dataclass(frozen=True)
class Uniform(Corrupted):
    """Different experts drawn at random for every token: by its id and place, the layer and seed.

    Attributes:
      seed: of the draws.
    """

    seed: int = 0

    def arrays(self, E, n):
        """A word of the layer."""
        return {"word": jnp.uint32(np.random.default_rng([self.seed, n]).integers(2**32))}

    def corrupt(self, params, plan, tokens, E):
        """Deals K of E; what was not chosen stays so."""
        T, K = plan.expert_TK.shape
        id_T = tokens[1].astype(jnp.uint32)
        word_T = mixed(mixed(id_T ^ state(params)["word"]) + jnp.arange(T, dtype=jnp.uint32))
        step_E = jnp.arange(1, E + 1, dtype=jnp.uint32) * jnp.uint32(0x9E3779B9)
        word_TE = mixed(word_T[:, None] + step_E[None, :])
        drawn_TK = jnp.argsort(word_TE, axis=1)[:, :K].astype(plan.expert_TK.dtype)
        return Choices(jnp.where(plan.expert_TK < E, drawn_TK, E), plan.gate_TK)


@dataclasses.dataclass(frozen=True)
class Renamed(Corrupted):
    """Expert e becomes names_E[e]: experts permuted, one swapped for another, or a matching.

    A token that has both of two experts that become one is served by that one twice. Unless names
    are given, a random cycle of all experts, which leaves none where it was.

    Attributes:
      seed: of the cycles.
    """

    seed: int = 0

    def arrays(self, E, n):
        """A cycle for each layer."""
        order_E = np.random.default_rng([self.seed, n]).permutation(E)
        names_E = np.empty(E, np.int32)
        names_E[order_E] = np.roll(order_E, 1)
        return {"names_E": jnp.asarray(names_E)}

    def corrupt(self, params, plan, tokens, E):
        """Renames; what was not chosen stays so."""
        names = jnp.append(state(params)["names_E"], E)
        return Choices(names[plan.expert_TK].astype(plan.expert_TK.dtype), plan.gate_TK)


@dataclasses.dataclass(frozen=True)
class _Ranked(Corrupted):
    """Asks the trained router for other choices than its own; top-k by preference alone."""

    def _top_k(self) -> TopK:
        """The trained router; raises Mistake where it does not choose by its preference."""
        trained = self.trained
        if isinstance(trained, TopK) and type(trained).assign is TopK.assign:
            return trained
        raise Mistake(f"{type(trained).__name__}: has no next best expert: must choose as top_k")


@dataclasses.dataclass(frozen=True)
class NextBest(_Ranked):
    """Choices 2 ... k + 1 in place of 1 ... k, as in LibMoE."""

    def corrupt(self, params, plan, tokens, E):
        """Leaves the first choice out."""
        trained = self._top_k()
        if trained.k == E:
            raise Mistake(f"{type(trained).__name__}: k={E} are all experts: there is no next best")
        wider = dataclasses.replace(trained, k=trained.k + 1)
        logits = wider.logits(params["trained"], tokens[0], None)
        expert_TK = wider.assign(params["trained"], logits, tokens[1], None)
        return Choices(expert_TK[:, 1:], plan.gate_TK)


@dataclasses.dataclass(frozen=True)
class Only(_Ranked):
    """Chooses among the experts of kept_E alone, whose gates are those of a router without others.

    At least k must be kept, and in groups of experts k of the groups that are chosen.
    """

    def arrays(self, E, n):
        """All are kept."""
        return {"kept_E": jnp.ones(E, bool)}

    def corrupt(self, params, plan, tokens, E):
        """Chooses and weighs without the others."""
        trained, kept_E = self._top_k(), state(params)["kept_E"][None, :]
        logits_TE = trained.logits(params["trained"], tokens[0], None).clean_TE
        preference_TE = trained.preference(params["trained"], logits_TE)
        preference_TE = jnp.where(kept_E, preference_TE, -jnp.inf)
        expert_TK = choose(trained.in_groups(preference_TE), trained.k)
        gate_TK = trained.gates(jnp.where(kept_E, logits_TE, -jnp.inf), expert_TK)
        return Choices(expert_TK, gate_TK)


@dataclasses.dataclass(frozen=True)
class Everywhere(Layout):
    """Every router of a model in a corrupted one.

    Attributes:
      corruption: whose `trained` is replaced by the router of the layer.
      inner: the layout of the model.
    """

    corruption: Corrupted = Corrupted()
    inner: Layout | None = None

    def router(self, n, layers, default):
        """The corrupted one around the router that the layer has."""
        trained = default if self.inner is None else self.inner.router(n, layers, default)
        return dataclasses.replace(self.corruption, trained=trained)

    def check(self, path, layers, num_experts):
        """As the layout within."""
        if self.inner is not None:
            self.inner.check(path, layers, num_experts)
