"""What it costs to intervene in the routing of a trained model, in nats per token of some text.

Layers one by one and from both ends (V-MoE, arXiv 2106.05974, appendix E), experts knocked out and
swapped, subsets of experts (EMO, 2605.06663). A layer that matters little costs little whatever is
done to it, so costs by depth are told as shares of what the layer's silence costs.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from moe.analysis.corruption import Corrupted, Everywhere, Only, Renamed
from moe.model.depth import map_routers
from moe.model.transformer import Transformer
from moe.params import Params, with_state
from moe.registry import Mistake

Given = Mapping[int, Mapping[str, Any]]  # MoE layer -> arrays of its intervention, by name


@dataclasses.dataclass(frozen=True)
class Subject:
    """A trained model, and how its loss is measured.

    Attributes:
      loss: of a model and its parameters, in nats per token, without noise; on held-out text as
        `evaluate(dataclasses.replace(experiment, model=model), params, dataset).val_loss`.
    """

    model: Transformer
    params: Params
    loss: Callable[[Transformer, Params], float]

    @property
    def layers(self) -> int:
        """MoE layers."""
        return len(self.model.moe_layers)

    @property
    def num_experts(self) -> int:
        """E, what routers choose from."""
        return self.model.sparse.routed_experts

    @functools.cached_property
    def baseline(self) -> float:
        """The loss as trained."""
        return self.loss(self.model, self.params)

    def corrupted(
        self, corruption: Corrupted, layers: Iterable[int], given: Given | None = None
    ) -> tuple[Transformer, Params]:
        """The model in which these MoE layers (0, 1, ... in depth) are corrupted.

        Args:
          corruption: whose `trained` counts for nothing.
          given: arrays in place of the corruption's own; "trained" are a router's parameters.

        Raises Mistake for a router without parameters: there is nothing to choose otherwise.
        """
        on, wrapped = set(layers), []

        def wrap(router, n):
            own = {} if given is None or n not in on else dict(given.get(n, {}))
            trained = own.pop("trained", router)
            arrays = {**corruption.arrays(self.num_experts, n), **own}
            wrapped.append(n)
            return with_state({"trained": trained}, on=jnp.asarray(n in on), **arrays)

        params = map_routers(self.params, wrap)
        if len(wrapped) != self.layers or not on <= set(wrapped):
            raise Mistake(
                f"layers={sorted(on)}: must be MoE layers below {self.layers} whose routers have "
                f"parameters, and those are {sorted(wrapped)}"
            )
        return self.model.clone(layout=Everywhere(corruption, self.model.layout)), params

    def cost(
        self, corruption: Corrupted, layers: Iterable[int], given: Given | None = None
    ) -> float:
        """Loss with these layers corrupted, above that of the model as trained."""
        return self.loss(*self.corrupted(corruption, layers, given)) - self.baseline


@dataclasses.dataclass(frozen=True)
class Depths:
    """Costs of one intervention by depth; upward and downward end with all MoE layers.

    Attributes:
      alone_N: of layer n alone.
      upward_N: of layers 0 ... n.
      downward_N: of layers n ... N - 1.
    """

    alone_N: np.ndarray
    upward_N: np.ndarray
    downward_N: np.ndarray

    def over(self, silent: "Depths") -> "Depths":
        """As shares of what it costs that the same layers' experts are silent.

        1 is as bad as no experts, above it worse; NaN where silence costs nothing.
        """

        def share(cost_N, whole_N):
            some_N = whole_N > 0
            return np.where(some_N, cost_N / np.where(some_N, whole_N, 1), np.nan)

        pairs = zip(dataclasses.astuple(self), dataclasses.astuple(silent), strict=True)
        return Depths(*(share(cost_N, whole_N) for cost_N, whole_N in pairs))


def by_depth(subject: Subject, corruption: Corrupted, given: Given | None = None) -> Depths:
    """The costs of a corruption in each layer and from both ends: at most 3 N losses."""
    N = subject.layers

    @functools.cache
    def cost(first: int, last: int) -> float:
        return subject.cost(corruption, range(first, last + 1), given)

    return Depths(
        np.array([cost(n, n) for n in range(N)]),
        np.array([cost(0, n) for n in range(N)]),
        np.array([cost(n, N - 1) for n in range(N)]),
    )


def another(others: Params, names_NE: np.ndarray) -> Given:
    """What `Renamed` takes so that another model's routers choose, seen through a matching.

    Args:
      others: parameters of a model of the same routers, as of another seed.
      names_NE: for each MoE layer, which of our experts each of the other's is.
    """
    routers = {}

    def keep(router, n):
        routers[n] = router
        return router

    map_routers(others, keep)
    return {
        n: {"trained": router, "names_E": jnp.asarray(names_NE[n], jnp.int32)}
        for n, router in routers.items()
    }


def knock_out(subject: Subject, n: int) -> np.ndarray:
    """cost_E: expert e of MoE layer n gives nothing, and no other serves in its place."""
    E, own_E = subject.num_experts, np.arange(subject.num_experts)
    return np.array([_renamed(subject, n, np.where(own_E == e, E, own_E)) for e in own_E])


def swap(subject: Subject, n: int) -> np.ndarray:
    """cost_EE[e, f]: in MoE layer n the tokens of expert e go to expert f; 0 on the diagonal."""
    own_E = np.arange(subject.num_experts)
    cost_EE = np.zeros((len(own_E), len(own_E)))
    for e, f in zip(*np.nonzero(~np.eye(len(own_E), dtype=bool)), strict=True):
        cost_EE[e, f] = _renamed(subject, n, np.where(own_E == e, f, own_E))
    return cost_EE


def _renamed(subject: Subject, n: int, names_E: np.ndarray) -> float:
    return subject.cost(Renamed(), [n], {n: {"names_E": jnp.asarray(names_E, jnp.int32)}})


def subsets(subject: Subject, order_NE: np.ndarray, counts: Sequence[int]) -> np.ndarray:
    """The cost of keeping so many experts of every MoE layer, which choose among themselves.

    Args:
      order_NE: the experts of each layer, those first that are kept longest; of a load:
        `np.argsort(-load_NE, axis=1, kind="stable")`.
      counts: how many are kept, each at least the router's k.
    """
    E, costs = subject.num_experts, []
    for count in counts:
        given = {
            n: {"kept_E": jnp.zeros(E, bool).at[jnp.asarray(order_E[:count])].set(True)}
            for n, order_E in enumerate(order_NE)
        }
        costs.append(subject.cost(Only(), range(subject.layers), given))
    return np.array(costs)
