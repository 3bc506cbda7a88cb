"""Which expert of one model is which of another: a matching of experts over the same tokens.

Experts have no order, so models of two seeds are compared after the one-to-one relabelling under
which they agree most: the assignment problem over counts of tokens that both gave to a pair.
"""

from dataclasses import dataclass

import numpy as np
from scipy import optimize

from moe.analysis import chance
from moe.analysis.contract import Reading, absent, reading
from moe.analysis.trace import LayerTrace, Trace


def together(first_TK: np.ndarray, second_TK: np.ndarray, sizes: tuple[int, int]) -> np.ndarray:
    """count_EF[i, j]: tokens that chose expert i in the first and j in the second, at any rank."""
    E, F = sizes
    count = np.zeros((E + 1, F + 1), np.int64)
    for i in range(first_TK.shape[1]):
        for j in range(second_TK.shape[1]):
            count += chance.table(first_TK[:, i].astype(np.int64), second_TK[:, j], count.shape)
    return count[:E, :F]


def match(count_EF: np.ndarray) -> np.ndarray:
    """partner_E: the expert of the second that each of the first is; -1 for those left over."""
    row, column = optimize.linear_sum_assignment(count_EF, maximize=True)
    partner_E = np.full(len(count_EF), -1)
    partner_E[row] = column
    return partner_E


def agreement(count_EF: np.ndarray, partner_E: np.ndarray, choices: int) -> float:
    """Share of the choices that the matched experts have in common."""
    matched = np.flatnonzero(partner_E >= 0)
    return float(count_EF[matched, partner_E[matched]].sum() / max(1, choices))


@dataclass(frozen=True)
class Matching:
    """Readings: matched, the agreement after the best matching, and matched_given_id, the same.

    The null of matched shuffles the tokens of the second model and matches again, since the best
    matching of unlike things agrees more than any one does; that of matched_given_id shuffles
    among the occurrences of an id, so the excess is what the id does not tell. Details: the
    matching; `random`, what a matching drawn at random agrees, by these counts; `unmatched`, what
    equal numbers agree.
    """

    draws: int = chance.DRAWS

    def __call__(
        self, text: Trace, first: LayerTrace, second: LayerTrace, generator: np.random.Generator
    ) -> list[Reading]:
        """In [0, 1]. Both read up to `chance.MOST` tokens, spread evenly."""
        few = chance.some(text.tokens)
        one_TK, two_TK, id_T = first.expert_TK[few], second.expert_TK[few], text.id_T[few]
        sizes = first.num_experts, second.num_experts
        choices = min(int((one_TK < sizes[0]).sum()), int((two_TK < sizes[1]).sum()))
        if not choices:
            return absent("matched", "matched_given_id")

        def best(other_TK):
            count = together(one_TK, other_TK, sizes)
            return agreement(count, match(count), choices)

        count = together(one_TK, two_TK, sizes)
        partner_E, number = match(count), min(sizes)
        value = agreement(count, partner_E, choices)
        null = [best(generator.permutation(two_TK)) for _ in range(self.draws)]
        orders = (chance.within(id_T, generator) for _ in range(self.draws))
        detail = {
            "partner": partner_E,
            "random": float(count.sum() / max(sizes) / choices),
            "unmatched": float(np.trace(count[:number, :number]) / choices),
        }
        return [
            reading("matched", value, null, detail),
            reading("matched_given_id", value, [best(two_TK[order]) for order in orders]),
        ]
