"""Hash layers: a token's id alone, through a fixed table, decides its experts (arXiv 2106.04426).

The table is integer state: no gradient, no optimizer, saved in every checkpoint.
"""

import dataclasses
from typing import ClassVar, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from moe.routing import Choices, Router, Routing, check_choices


class Table(Protocol):
    """Builds the table from token id to K distinct experts."""

    kind: ClassVar[str] = "table"

    def fit(self, expert_VK: np.ndarray, E: int, count_V: np.ndarray, seed: int) -> np.ndarray:
        """Returns expert_VK, given the random table of `Hash.init` and the corpus' counts."""
        ...


@dataclasses.dataclass(frozen=True)
class RandomTable(Table):
    """Every id draws K distinct experts uniformly: even over ids, uneven over tokens."""

    def fit(self, expert_VK, E, count_V, seed):
        """Keeps the random table."""
        del E, count_V, seed
        return expert_VK


@dataclasses.dataclass(frozen=True)
class BalancedTable(Table):
    """Ids from most to least frequent, each to the K experts with the least load so far.

    Cannot balance when one id alone is more than 1/E of all tokens (max violation is then at
    least E * p - 1). Equal counts and equal loads are broken at random by the seed.
    """

    def fit(self, expert_VK, E, count_V, seed):
        """Returns the greedy assignment; count_V are occurrences in the training corpus."""
        V, K = expert_VK.shape
        if len(count_V) != V:
            raise ValueError(f"count_V has {len(count_V)} entries: the table has {V} ids")
        generator = np.random.default_rng(seed)
        table_VK, load_E = np.empty_like(expert_VK), np.zeros(E)
        for token in np.lexsort((generator.random(V), -np.asarray(count_V))):
            table_VK[token] = np.lexsort((generator.random(E), load_E))[:K]
            load_E[table_VK[token]] += count_V[token]
        return table_VK


@dataclasses.dataclass(frozen=True)
class Hash(Router):
    """Each token goes to the k experts that its id was dealt; every gate is the constant 1/k.

    Attributes:
      k: experts per token, in [1, num_experts].
      table: how ids are dealt.
    """

    k: int = 1
    table: Table = RandomTable()

    needs_ids: ClassVar[bool] = True
    learned: ClassVar[bool] = False

    def init(self, key, D, E, V):
        """Makes state.expert_VK (int32): for every id, k distinct experts, uniformly."""
        del D
        draw_VE = jax.random.uniform(key, (V, E))
        expert_VK = jnp.argsort(draw_VE, axis=1)[:, : self.k].astype(jnp.int32)
        return {"state": {"expert_VK": expert_VK}}

    def __call__(self, params, x_TD, id_T, E, rng):
        """Looks id_T up; x_TD gives only its length. Out-of-range ids clip to the last row."""
        del E, rng
        expert_TK = jnp.take(params["state"]["expert_VK"], id_T, axis=0, mode="clip")
        gate_TK = jnp.full((x_TD.shape[0], self.k), 1 / self.k, jnp.float32)
        return Routing(Choices(expert_TK, gate_TK))

    def fit(self, params, E, count_V, seed):
        """Hands the table to `table.fit`; runs on the host."""
        expert_VK = self.table.fit(np.asarray(params["state"]["expert_VK"]), E, count_V, seed)
        return {"state": {"expert_VK": jnp.asarray(expert_VK, jnp.int32)}}

    def choices(self, E):
        """k."""
        del E
        return self.k

    def check(self, path, num_experts):
        """Raises ValueError unless 1 <= k <= num_experts."""
        check_choices(path, self.k, num_experts)


RANDOM = Hash(table=RandomTable())
BALANCED = Hash(table=BalancedTable())
