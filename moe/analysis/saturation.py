"""How much of a router's choices is settled at a step: two checkpoints on the same text.

Saturation is the share of the final experts that a token has already (OLMoE, arXiv 2409.02060);
the change rate is the share of tokens whose first expert differs (LibMoE, arXiv 2411.00918); the
last change is when a token's expert last differed from its final one (StableMoE, 2204.08396).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from moe.analysis import chance
from moe.analysis.contract import Reading, reading, same_text
from moe.analysis.trace import LayerTrace, Trace


def overlap(first_TK: np.ndarray, second_TK: np.ndarray, E: int) -> float:
    """Share of the second's choices that the first made too; the ranks do not matter."""
    common = 0
    for rank in range(second_TK.shape[1]):
        choice = second_TK[:, rank : rank + 1]
        common += int(((choice == first_TK) & (choice < E)).any(axis=1).sum())
    return common / max(1, int((second_TK < E).sum()))


def changed(first_T: np.ndarray, second_T: np.ndarray) -> float:
    """Share of the tokens whose first expert is another one."""
    return float((first_T != second_T).mean())


@dataclass(frozen=True)
class Saturation:
    """Readings: saturation, of the second checkpoint's choices in the first, and change_rate.

    The null shuffles the tokens of the first: for even loads k / E, and 1 - 1/E. It reads up to
    `chance.MOST` tokens, so on longer texts its spread is that of the smaller number.
    """

    draws: int = chance.DRAWS

    def __call__(
        self, text: Trace, first: LayerTrace, second: LayerTrace, generator: np.random.Generator
    ) -> list[Reading]:
        """Both in [0, 1]; saturation over checkpoints is a call for each, the last one second."""
        E = second.num_experts
        one, two = chance.first_choice(first), chance.first_choice(second)
        few = chance.some(text.tokens)
        orders = [generator.permutation(few) for _ in range(self.draws)]
        kept = [overlap(first.expert_TK[o], second.expert_TK[few], E) for o in orders]
        moved = [changed(one[o], two[few]) for o in orders]
        even = {"even": first.expert_TK.shape[1] / first.num_experts}
        share = overlap(first.expert_TK, second.expert_TK, E)
        return [
            reading("saturation", share, kept, even),
            reading("change_rate", changed(one, two), moved),
        ]


def last_change(traces: Sequence[Trace]) -> np.ndarray:
    """share[layer, n]: tokens whose first expert is the final one from checkpoint n on.

    The cumulative distribution of the last change, over checkpoints of one model in their order;
    its last entry is 1. Raises Mistake where the texts differ.
    """
    for trace in traces[:-1]:
        same_text(traces[-1], trace)
    found = np.empty((len(traces[-1].layers), len(traces)))
    for n, last in enumerate(traces[-1].layers):
        final_T = chance.first_choice(last)
        same = np.stack([chance.first_choice(trace.layers[n]) == final_T for trace in traces])
        settled = np.logical_and.accumulate(same[::-1])[::-1]
        found[n] = settled.mean(axis=1)
    return found
