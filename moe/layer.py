"""The mixture-of-experts layer: route, dispatch, apply the experts, combine."""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp

from moe.dispatch.contract import Dispatch, Stats
from moe.dispatch.ragged import Ragged
from moe.experts import Experts, SwiGLU
from moe.routers.top_k import TopK
from moe.routing import Params, Router


@flax.struct.dataclass
class Aux:
    """What one layer reports beside its output.

    Attributes:
      losses: name -> weighted scalar, to be added to the training loss.
      metrics: name -> scalar.
      stats: name -> what `Router.update` needs, with a leading group axis where there are groups.
      counts: the dispatcher's statistics, summed over groups (slots_used averaged).
      assigned_BLE: how many of each token's choices each expert got (float32).
    """

    losses: dict[str, jax.Array]
    metrics: dict[str, jax.Array]
    stats: dict[str, jax.Array]
    counts: Stats
    assigned_BLE: jax.Array


@dataclasses.dataclass(frozen=True)
class MoE:
    """E experts, a router that decides who, and a dispatcher that decides how.

    Attributes:
      num_experts: E.
      router: chooses experts for tokens, or tokens for experts.
      dispatch: carries tokens to experts and back.
      experts: the networks.
    """

    num_experts: int = 8
    router: Router = TopK()
    dispatch: Dispatch = Ragged()
    experts: Experts = SwiGLU()

    def init(self, key: jax.Array, D: int, V: int) -> Params:
        """Makes {"router", "experts"} in float32; V is the vocabulary size."""
        router_key, experts_key = jax.random.split(key)
        return {
            "router": self.router.init(router_key, D, self.num_experts, V),
            "experts": self.experts.init(experts_key, self.num_experts, D),
        }

    def __call__(
        self, params: Params, x_BLD: jax.Array, id_BL: jax.Array, rng: jax.Array | None
    ) -> tuple[jax.Array, Aux]:
        """Returns (y_BLD, Aux); rng=None is evaluation."""
        B, L, D = x_BLD.shape
        E, G = self.num_experts, self.dispatch.groups(B * L)
        T = B * L // G

        def route_group(x_TD, id_T, rng):
            routing = self.router(params["router"], x_TD, id_T, E, rng)
            y_TD, counts = self.dispatch(routing.plan, x_TD, self.experts, params["experts"], E)
            assigned_TE = routing.plan.assigned_TE(T, E)
            return y_TD, Aux(routing.losses, routing.metrics, routing.stats, counts, assigned_TE)

        if G == 1:
            y_TD, aux = route_group(x_BLD.reshape(T, D), id_BL.reshape(T), rng)
            aux = aux.replace(assigned_BLE=aux.assigned_BLE.reshape(B, L, E))
            return y_TD.reshape(B, L, D), aux
        rng_G = None if rng is None else jax.random.split(rng, G)
        y_GTD, aux = jax.vmap(route_group, in_axes=(0, 0, None if rng is None else 0))(
            x_BLD.reshape(G, T, D), id_BL.reshape(G, T), rng_G
        )
        return y_GTD.reshape(B, L, D), _sum_groups(aux, B, L, E)

    def check(self, path: str, tokens: int) -> None:
        """Raises ValueError, one line that starts with `path`, for impossible fields."""
        if self.num_experts < 1:
            raise ValueError(f"{path}.num_experts={self.num_experts}: must be >= 1")
        if self.experts.width < 1:
            raise ValueError(f"{path}.experts.width={self.experts.width}: must be >= 1")
        self.router.check(f"{path}.router", self.num_experts)
        self.dispatch.check(f"{path}.dispatch", tokens)


def _sum_groups(aux: Aux, B: int, L: int, E: int) -> Aux:
    """Averages losses and metrics over the leading group axis, adds counts up."""
    mean, total = lambda a: jnp.mean(a, axis=0), lambda a: jnp.sum(a, axis=0)
    return Aux(
        losses=jax.tree.map(mean, aux.losses),
        metrics=jax.tree.map(mean, aux.metrics),
        stats=aux.stats,
        counts=Stats(
            total(aux.counts.load_E), total(aux.counts.dropped_K), mean(aux.counts.slots_used)
        ),
        assigned_BLE=aux.assigned_BLE.reshape(B, L, E),
    )
