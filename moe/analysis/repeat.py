"""Repeat rate: how often a token has the expert of the token before it (Mixtral, 2401.04088).

Above the sum of squared loads, tokens that follow each other are alike for the router. Part of
that is that the same tokens return, which a shuffle among the occurrences of an id keeps.
"""

from dataclasses import dataclass

import numpy as np
from scipy import special

from moe.analysis import chance
from moe.analysis.contract import Reading, absent, reading
from moe.analysis.trace import LayerTrace, Trace

NAMES = ("repeat", "repeat_given_id", "repeat_given_id_in_document", "repeat_any")


def rate(expert_T: np.ndarray, at: np.ndarray) -> float:
    """P(e_t = e_t-1) over the tokens t that `at` lists."""
    return float((expert_T[at] == expert_T[at - 1]).mean())


def any_rate(expert_TK: np.ndarray, at: np.ndarray, E: int) -> float:
    """Share of those tokens that have any expert in common with the token before."""
    here, before = expert_TK[at], expert_TK[at - 1]
    common = np.zeros(len(at), bool)
    for rank in range(here.shape[1]):
        choice = here[:, rank : rank + 1]
        common |= ((choice == before) & (choice < E)).any(axis=1)
    return float(common.mean())


def even_any(E: int, k: int) -> float:
    """1 - C(E - k, k) / C(E, k): any_rate of k of E drawn evenly."""
    return float(1 - special.comb(E - k, k) / special.comb(E, k))


@dataclass(frozen=True)
class Repeat:
    """Readings: repeat, of first choices, beside three nulls, and repeat_any, of whole sets.

    The null of repeat and repeat_any shuffles all tokens (its mean is the sum of squared loads);
    that of repeat_given_id shuffles among the occurrences of an id, and that of
    repeat_given_id_in_document among those in one document, where most ids stand once.
    """

    draws: int = chance.DRAWS

    def __call__(
        self, trace: Trace, layer: LayerTrace, generator: np.random.Generator
    ) -> list[Reading]:
        """In [0, 1], within windows and documents; only tokens that chose, after one that did."""
        E, expert_T, at = layer.num_experts, chance.first_choice(layer), chance.pairs(trace)
        at = at[(expert_T[at] < E) & (expert_T[at - 1] < E)]
        if not len(at):
            return absent(*NAMES)
        share_E = np.bincount(expert_T, minlength=E + 1)[:E] / (expert_T < E).sum()
        value, k = rate(expert_T, at), layer.expert_TK.shape[1]
        id_T, V = trace.id_T.astype(np.int64), int(trace.id_T.max()) + 1
        everywhere = np.where(expert_T < E, 0, 1)  # who made no choice stays where it is

        def null(group_T):
            orders = (chance.within(group_T, generator) for _ in range(self.draws))
            return np.array([rate(expert_T[order], at) for order in orders])

        squares = {"sum_of_squares": float((share_E**2).sum()), "even": 1 / E}
        of_id = id_T * 2 + everywhere
        found = [
            reading("repeat", value, null(everywhere), squares),
            reading("repeat_given_id", value, null(of_id)),
            reading(
                "repeat_given_id_in_document",
                value,
                null(trace.document_T.astype(np.int64) * (2 * V) + of_id),
            ),
        ]
        if k == 1:
            return [*found, Reading("repeat_any", None)]
        shuffled = [generator.permutation(len(expert_T)) for _ in range(self.draws)]
        drawn = np.array([any_rate(layer.expert_TK[order], at, E) for order in shuffled])
        even = {"even": even_any(E, k)}
        return [*found, reading("repeat_any", any_rate(layer.expert_TK, at, E), drawn, even)]
