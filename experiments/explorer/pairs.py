"""Which expert of one layer is which of another: one to one, after the tokens that they share.

The partners are those of `moe.analysis.matching` by the experts that tokens prefer. Some agreement
is there by matching alone, so beside it stands what is left when one side's tokens are shuffled.
"""

from typing import NamedTuple

import numpy as np

from moe.analysis import chance, matching
from moe.analysis.trace import LayerTrace

SHUFFLES = 5


class Pair(NamedTuple):
    """Two layers over the same tokens.

    Attributes:
      partner_E: of each expert of the first, the one of the second; -1 where none is left.
      same_T: tokens whose preferred experts are partners; false where one side has none.
      null: mean share of such tokens when those of the second are shuffled.
    """

    partner_E: np.ndarray
    same_T: np.ndarray
    null: float

    @property
    def agreement(self) -> float:
        """Share of all tokens."""
        return float(self.same_T.mean())


def pair(one: LayerTrace, other: LayerTrace) -> Pair:
    """Matches the experts that tokens prefer.

    The null is drawn with a fixed seed, from up to `moe.analysis.chance.MOST` tokens.
    """
    a_T, b_T = one.expert_TK[:, 0], other.expert_TK[:, 0]
    sizes = one.num_experts, other.num_experts
    partner_E = _partners(a_T, b_T, sizes)
    rng, few, nulls = np.random.default_rng(0), chance.some(len(a_T)), []
    for _ in range(SHUFFLES):
        mine_T, shuffled_T = a_T[few], rng.permutation(b_T[few])
        nulls.append(_same(mine_T, shuffled_T, _partners(mine_T, shuffled_T, sizes)).mean())
    return Pair(partner_E, _same(a_T, b_T, partner_E), float(np.mean(nulls)))


def slots(one: LayerTrace, slot_E: np.ndarray, other: LayerTrace) -> np.ndarray:
    """Colours of the experts of `other`: that of the partner, then those not taken."""
    sizes = one.num_experts, other.num_experts
    partner_E = _partners(one.expert_TK[:, 0], other.expert_TK[:, 0], sizes)
    found = np.full(other.num_experts, -1)
    found[partner_E[partner_E >= 0]] = slot_E[partner_E >= 0]
    free = iter(sorted(set(range(sum(sizes))) - set(found.tolist())))
    return np.array([slot if slot >= 0 else next(free) for slot in found])


def _partners(a_T: np.ndarray, b_T: np.ndarray, sizes: tuple[int, int]) -> np.ndarray:
    return matching.match(matching.together(a_T[:, None], b_T[:, None], sizes))


def _same(a_T: np.ndarray, b_T: np.ndarray, partner_A: np.ndarray) -> np.ndarray:
    wanted_T = np.append(partner_A, -1)[a_T]
    return (wanted_T >= 0) & (wanted_T == b_T)
