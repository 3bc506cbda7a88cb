"""Hash layers: a fixed table decides the experts of a token (arXiv 2106.04426).

The table is integer state: no gradient, no optimizer, saved in every checkpoint.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np

from moe.params import named, state, with_state
from moe.plan import Choices
from moe.registry import Mistake
from moe.routers.contract import Router, Routing, check_choices
from moe.routers.parts.gates import ConstantGate, Gate, ScalarGate, ScoreGate
from moe.routers.parts.keys import Key, Next, NGram, Position, Previous, Token
from moe.routers.parts.tables import (
    BalancedTable,
    ClusteredTable,
    DispersedTable,
    RandomTable,
    Table,
)


@dataclasses.dataclass(frozen=True)
class Hash(Router):
    """Each token goes to the k experts that its key was dealt.

    Attributes:
      k: experts per token, in [1, num_experts].
      key: what is hashed: the token's id, or its neighbours, or its place.
      table: how keys are dealt.
      gate: how the experts are weighed.
    """

    k: int = 1
    key: Key = Token()
    table: Table = RandomTable()
    gate: Gate = ConstantGate()

    @property
    def needs_ids(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """All keys but the place come from ids."""
        return not isinstance(self.key, Position)

    @property
    def learned(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The table never is; the gate may be."""
        return self.gate.learned

    @property
    def needs_corpus(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Where the table is fitted to the text."""
        return self.table.needs_corpus

    @property
    def causal(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """False for the next-token oracle alone."""
        return self.key.causal

    causal_in_training = causal  # pyright: ignore[reportAssignmentType]

    def init(self, key, D, E, V):
        """Makes state.expert_VK (int32), for every key k distinct experts, as `table.init` does."""
        expert_VK = self.table.init(key, self.key.rows(V), E, self.k)
        gate = self.gate.init(named(key, "gate"), D, E)
        return with_state(gate, expert_VK=expert_VK)

    def keys(self, id_BL, label_BL):
        """The rows of the table."""
        del label_BL
        return self.key(id_BL)

    def __call__(self, params, x_TD, id_T, E, rng):
        """Looks the keys id_T up. Out-of-range keys clip to the last row."""
        del E, rng
        expert_TK = jnp.take(state(params)["expert_VK"], id_T, axis=0, mode="clip")
        return Routing(Choices(expert_TK, self.gate(params, x_TD, expert_TK)))

    def fit(self, params, E, corpus, seed):
        """Hands the table to `table.fit`; runs on the host."""
        expert_VK = np.asarray(state(params)["expert_VK"])
        rows = self.key.rows(len(corpus.count_V))
        if len(expert_VK) != rows:
            raise Mistake(
                f"model.vocab_size: the corpus has {len(corpus.count_V)} ids and needs a hash "
                f"table of {rows} rows, this one has {len(expert_VK)}"
            )
        fitted = self.table.fit(expert_VK, E, self.key.count(corpus), corpus, seed)
        return with_state(params, expert_VK=jnp.asarray(fitted, jnp.int32))

    def choices(self, E, T):
        """k."""
        del E, T
        return self.k

    def products(self, D, E):
        """Those of the gate; the table is looked up."""
        return self.gate.products(D, E)

    def ranks(self, E):
        """k."""
        del E
        return self.k

    def check(self, path, num_experts):
        """Raises Mistake for impossible k and tables."""
        check_choices(path, self.k, num_experts)
        self.table.check(f"{path}.table")
        if self.table.of_tokens and not isinstance(self.key, Token):
            raise Mistake(
                f"{path}.table={type(self.table).__name__}: groups token ids, so it needs key=token"
            )


RANDOM = Hash()
BALANCED = Hash(table=BalancedTable())
CLUSTERED = Hash(table=ClusteredTable())
DISPERSED = Hash(table=DispersedTable())
BIGRAM = Hash(key=NGram(n=2), table=BalancedTable())
PREVIOUS = Hash(key=Previous(), table=BalancedTable())
POSITION = Hash(key=Position())
ORACLE = Hash(key=Next(), table=BalancedTable())
SCALAR_GATE = Hash(table=BalancedTable(), gate=ScalarGate())
SCORE_GATE = Hash(table=BalancedTable(), gate=ScoreGate())
