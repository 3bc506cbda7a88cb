"""Co-activation: of the tokens that chose an expert, how many chose another as well.

OLMoE (arXiv 2409.02060), section 5.3: n_ij / n_i. Its released code (run_moe_analysis.py,
do_correlation_analysis) walks `pairwise` along the experts ranked by score, so it counts only
neighbours in rank: 7 of the 28 pairs for k = 8. Here are all pairs, and those, to match its figure.
"""

from dataclasses import dataclass

import numpy as np

from moe.analysis import chance
from moe.analysis.contract import Reading, absent, reading
from moe.analysis.trace import LayerTrace, Trace

TRADES = 5  # rounds between draws of the null
CELLS = 2**22  # of the null's table of tokens by experts, at most
SHOWN = 64  # experts, at most, whose table is among the details


def coactivation(expert_TK: np.ndarray, E: int, adjacent_only: bool = False) -> np.ndarray:
    """share_EE[i, j] = n_ij / n_i; rows of all pairs sum to k - 1 where every choice was made.

    The diagonal is 0, and so is the row of an expert that was not chosen.
    """
    together = np.zeros((E + 1, E + 1))
    K = expert_TK.shape[1]
    for i in range(K):
        for j in range(i + 1, min(K, i + 2) if adjacent_only else K):
            together += chance.table(
                expert_TK[:, i].astype(np.int64), expert_TK[:, j], together.shape
            )
    together = (together + together.T)[:E, :E]
    chosen_E = np.bincount(expert_TK.ravel(), minlength=E + 1)[:E]
    return _shares(together, chosen_E)


def _shares(together_EE, chosen_E):
    return together_EE / np.maximum(chosen_E, 1)[:, None]


def of_members(member_TE: np.ndarray) -> np.ndarray:
    """All pairs of a table of sets."""
    member = member_TE.astype(np.float32)
    together = (member.T @ member).astype(np.float64)
    chosen_E = np.diag(together).copy()
    np.fill_diagonal(together, 0)
    return _shares(together, chosen_E)


def strongest(share_EE: np.ndarray) -> float:
    """The share of an expert's tokens that its most frequent partner reads too, mean of those
    that have a token."""
    used = share_EE.any(axis=1)
    return float(share_EE[used].max(axis=1).mean()) if used.any() else np.nan


@dataclass(frozen=True)
class CoActivation:
    """Readings: partner (all pairs) and partner_adjacent (OLMoE's figure), the mean share of the
    strongest partner.

    The null of the first trades choices between tokens: sizes of sets and loads of experts stay.
    The second has none: ranks have no meaning in a traded set. Details: the tables.
    """

    draws: int = 10

    def __call__(
        self, trace: Trace, layer: LayerTrace, generator: np.random.Generator
    ) -> list[Reading]:
        """In [0, 1], a pair by even chance (k - 1) / (E - 1); None where no token has two."""
        E, expert_TK = layer.num_experts, layer.expert_TK
        if not ((expert_TK < E).sum(axis=1) > 1).any():
            return absent("partner", "partner_adjacent")
        share = coactivation(expert_TK, E)
        adjacent = coactivation(expert_TK, E, adjacent_only=True)
        member = chance.members(expert_TK[chance.some(trace.tokens, max(2, CELLS // E))], E)
        null = np.empty(self.draws)
        for n in range(self.draws):
            for _ in range(TRADES):
                member = chance.traded(member, generator)
            null[n] = strongest(of_members(member))
        tables = [{"share": each} if E <= SHOWN else {} for each in (share, adjacent)]
        return [
            reading("partner", strongest(share), null, tables[0]),
            reading("partner_adjacent", strongest(adjacent), (), tables[1]),
        ]
