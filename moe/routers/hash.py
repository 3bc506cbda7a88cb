"""Hash layers: a fixed table decides the experts of a token (arXiv 2106.04426).

The table is integer state: no gradient, no optimizer, saved in every checkpoint.
"""

import dataclasses
from typing import ClassVar, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from moe.params import Params
from moe.registry import Mistake
from moe.routers.keys import Key, Next, NGram, Position, Previous, Token
from moe.routers.scores import Score, Softmax
from moe.routers.tables import BalancedTable, ClusteredTable, DispersedTable, RandomTable, Table
from moe.routers.top_k import product, take
from moe.routing import Choices, Router, Routing, check_choices


class Gate(Protocol):
    """How a hashed expert's output is weighed."""

    kind: ClassVar[str] = "gate"
    learned: ClassVar[bool] = True

    def init(self, key: jax.Array, D: int, E: int) -> Params:
        """Makes w_DE, or nothing."""
        return {"w_DE": jax.random.normal(key, (D, E)) / D**0.5}

    def __call__(self, params: Params, x_TD: jax.Array, expert_TK: jax.Array) -> jax.Array:
        """Returns gate_TK in float32."""
        ...


@dataclasses.dataclass(frozen=True)
class ConstantGate(Gate):
    """1/k for every expert, the paper's choice at k = 1."""

    learned: ClassVar[bool] = False

    def init(self, key, D, E):
        """Has no parameters."""
        del key, D, E
        return {}

    def __call__(self, params, x_TD, expert_TK):
        """The constant."""
        del params, x_TD
        return jnp.full(expert_TK.shape, 1 / expert_TK.shape[1], jnp.float32)


@dataclasses.dataclass(frozen=True)
class ScalarGate(Gate):
    """2 sigmoid(x w_e) / k, about 1/k at step 0: each expert learns how loud to be."""

    def __call__(self, params, x_TD, expert_TK):
        """One product with every expert's column, of which the hashed ones count."""
        logits_TE = product(x_TD, params["w_DE"])
        return jax.nn.sigmoid(take(logits_TE, expert_TK)) * (2 / expert_TK.shape[1])


@dataclasses.dataclass(frozen=True)
class ScoreGate(Gate):
    """The score that a learned router would give the hashed experts (DeepSeek-V4's form).

    Renormalised over the k experts when k > 1.

    Attributes:
      score: over all experts; DeepSeek-V4 has sqrt_softplus.
      scale: factor of the gates.
    """

    score: Score = Softmax()
    scale: float = 1.0

    def __call__(self, params, x_TD, expert_TK):
        """Scores all experts and takes the hashed ones."""
        gate_TK = take(self.score(product(x_TD, params["w_DE"])), expert_TK)
        if expert_TK.shape[1] > 1:
            gate_TK = gate_TK / (gate_TK.sum(axis=1, keepdims=True) + 1e-20)
        return gate_TK * self.scale


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
    def needs_ids(self) -> bool:
        """All keys but the place come from ids."""
        return not isinstance(self.key, Position)

    @property
    def learned(self) -> bool:
        """The table never is; the gate may be."""
        return self.gate.learned

    @property
    def causal(self) -> bool:
        """False for the next-token oracle alone."""
        return self.key.causal

    causal_in_training = causal

    def init(self, key, D, E, V):
        """Makes state.expert_VK (int32), for every key k distinct experts drawn uniformly."""
        draw_VE = jax.random.uniform(key, (self.key.rows(V), E))
        expert_VK = jnp.argsort(draw_VE, axis=1)[:, : self.k].astype(jnp.int32)
        gate = self.gate.init(jax.random.fold_in(key, 1), D, E)
        return {**gate, "state": {"expert_VK": expert_VK}}

    def keys(self, id_BL, label_BL):
        """The rows of the table."""
        del label_BL
        return self.key(id_BL)

    def __call__(self, params, x_TD, id_T, E, rng):
        """Looks the keys id_T up. Out-of-range keys clip to the last row."""
        del E, rng
        expert_TK = jnp.take(params["state"]["expert_VK"], id_T, axis=0, mode="clip")
        return Routing(Choices(expert_TK, self.gate(params, x_TD, expert_TK)))

    def fit(self, params, E, corpus, seed):
        """Hands the table to `table.fit`; runs on the host."""
        expert_VK = np.asarray(params["state"]["expert_VK"])
        rows = self.key.rows(len(corpus.count_V))
        if len(expert_VK) != rows:
            raise Mistake(
                f"model.vocab_size: the corpus has {len(corpus.count_V)} ids and needs a hash "
                f"table of {rows} rows, this one has {len(expert_VK)}"
            )
        fitted = self.table.fit(expert_VK, E, self.key.count(corpus), corpus, seed)
        state = {"expert_VK": jnp.asarray(fitted, jnp.int32)}
        return {**params, "state": {**params["state"], **state}}

    def choices(self, E, T):
        """k."""
        del E, T
        return self.k

    def check(self, path, num_experts):
        """Raises Mistake for impossible k, keys and tables."""
        check_choices(path, self.k, num_experts)
        self.key.check(f"{path}.key")
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
