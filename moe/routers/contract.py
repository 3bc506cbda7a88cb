"""What every router takes, returns and declares."""

from typing import Any, ClassVar, Protocol

import flax.struct
import jax

from moe.data.counts import Corpus
from moe.params import Params
from moe.plan import Plan
from moe.registry import Mistake
from moe.routers.parts.losses import NoLosses, Terms


@flax.struct.dataclass
class Routing:
    """What a router returns for one group of T tokens.

    Attributes:
      plan: Choices, Slots or Mix.
      terms: name -> array with a leading axis T, what `Router.losses` needs; the layer adds the
        terms up over the scope of the losses.
      metrics: name -> scalar to log, never differentiated.
      stats: name -> array that `Router.update` needs beyond the load, already summed over the
        group; sums over groups, microbatches and devices.
      asked_TE: how many assignments each token asked of each expert, where the plan holds those
        alone that the router had room for; None where the plan holds all.
    """

    plan: Plan
    terms: Terms = flax.struct.field(default_factory=dict)
    metrics: dict[str, jax.Array] = flax.struct.field(default_factory=dict)
    stats: dict[str, jax.Array] = flax.struct.field(default_factory=dict)
    asked_TE: jax.Array | None = None

    def counts(self, T: int, E: int) -> tuple[jax.Array, jax.Array]:
        """What tokens asked of experts, asked_TE, and how much of it is not in the plan, left_T."""
        planned_TE = self.plan.assigned_TE(T, E)
        asked_TE = planned_TE if self.asked_TE is None else self.asked_TE
        return asked_TE, (asked_TE - planned_TE).sum(axis=1)


class Router(Protocol):
    """Decides who reads which token; a frozen dataclass of hyper-parameters.

    The declarations are measured by tests/routers/test_routers.py, not believed. They are about
    its plans; what becomes of a token after drops, `moe.model.layer.MoE.causal` says.

    Attributes:
      losses: what becomes of `Routing.terms`: an object with a scope that takes the sums and the
        number of tokens, and returns weighted losses and metrics (`parts.losses.Losses`).
    """

    kind: ClassVar[str] = "router"
    causal: ClassVar[bool] = True  # at evaluation, a token's plan does not depend on later tokens
    causal_in_training: ClassVar[bool] = True  # nor in training
    batch_invariant: ClassVar[bool] = True  # at evaluation, nor on other sequences of the batch
    needs_ids: ClassVar[bool] = False  # reads id_T
    needs_labels: ClassVar[bool] = False  # reads labels, through `keys`
    needs_corpus: ClassVar[bool] = False  # is not itself before `fit`
    learned: ClassVar[bool] = True  # has parameters that the loss moves
    fixed_choices: ClassVar[bool] = True  # `choices` holds at every step, not only on average
    mixes: ClassVar[bool] = False  # returns Mix: two products carry tokens to experts and back

    losses: Any = NoLosses()
    __dataclass_fields__: ClassVar[dict[str, Any]]  # so that `dataclasses.replace` takes it

    def init(self, key: jax.Array, D: int, E: int, V: int) -> Params:
        """Makes the parameters; V is the vocabulary size, for routers that read ids."""
        ...

    def __call__(
        self, params: Params, x_TD: jax.Array, id_T: jax.Array, E: int, rng: jax.Array | None
    ) -> Routing:
        """Routes one group; rng=None is evaluation: no noise, deterministic.

        id_T is what `keys` made of the batch: the tokens' ids, unless the router says otherwise.
        """
        ...

    def preferences(
        self, params: Params, x_TD: jax.Array, id_T: jax.Array, E: int
    ) -> jax.Array | None:
        """What a token's experts are compared by at evaluation (TE), -inf for those out of reach.

        None, unless said otherwise: nothing is compared, or not for each token by itself.
        """
        del params, x_TD, id_T, E
        return None

    def matrix(self, params: Params) -> jax.Array | None:
        """w_DE, where x w is what the choice rests on; None, unless said."""
        del params
        return None

    def keys(self, id_BL: jax.Array, label_BL: jax.Array | None) -> jax.Array:
        """The integer that a token is routed by, seen with its whole sequence; its id by default.

        label_BL: a human label of every token (`data.label`), or None where there is none.
        """
        del label_BL
        return id_BL

    def fit(self, params: Params, E: int, corpus: Corpus, seed: int) -> Params:
        """Adapts to the training corpus, once before step 0, outside jit."""
        del E, corpus, seed
        return params

    def update(self, params: Params, load_E: jax.Array, stats: dict[str, jax.Array]) -> Params:
        """Applies a rule that is no gradient, once per optimizer step.

        load_E, what tokens asked of each expert, and stats are sums over all groups, microbatches
        and devices of the step.
        """
        del load_E, stats
        return params

    def choices(self, E: int, T: int) -> float:
        """Experts that serve one of T tokens, on average: costs count it, tests measure it."""
        del E, T
        return 1

    def products(self, D: int, E: int) -> int:
        """Multiply-adds per token of its own matrix products, forward in training.

        Whatever their factors are: parameters, state or what was drawn. Loops whose length depends
        on the data do not count. None, unless said; tests compare with compiled programs.
        """
        del D, E
        return 0

    def ranks(self, E: int) -> int:
        """In how many columns of `Choices` one and the same expert may stand.

        1 where each expert has a column of its own, and for plans of other kinds. With more, who
        comes first for an expert's slots depends on the dispatcher's priority.
        """
        del E
        return 1

    def with_capacity(self, factor: float) -> "Router":
        """The same with another capacity factor; itself where it has none."""
        del factor
        return self

    def check(self, path: str, num_experts: int) -> None:
        """Raises Mistake, one line that starts with `path`, for impossible fields."""
        del path, num_experts


def check_choices(path: str, k: int, num_experts: int) -> None:
    """Raises Mistake unless a token can have k different experts."""
    if not 1 <= k <= num_experts:
        raise Mistake(f"{path}.k={k}: must be in [1, num_experts={num_experts}]")
