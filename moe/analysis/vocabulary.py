"""Vocabulary specialisation: how much of a token's occurrences its favourite expert takes.

OLMoE (arXiv 2409.02060): n_x,e / N_x of the first choice, for the token read and the true next one.
The average that its code prints (run_moe_analysis.py, print_avg) is over types, those that stand
once too, which count as 100 % by definition; the filter of 10 occurrences comes after it. Here are
that average and two without the bias, each with its null. The token that a model predicts, the
third of the paper, is not in a trace.
"""

from dataclasses import dataclass

import numpy as np

from moe.analysis import chance
from moe.analysis.contract import Reading, reading
from moe.analysis.trace import LayerTrace, Trace

OFTEN = 10  # occurrences of a type that is counted without the bias
VARIANTS = ("types", "frequent", "tokens")


def specialisation(id_T: np.ndarray, expert_T: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The favourite's share as a mean over types, over types of OFTEN tokens, and over tokens.

    NaN where there is no such type; the first is the biased one of the released code.
    """
    count_VE = chance.table(id_T, expert_T, shape)
    total_V, most_V = count_VE.sum(axis=1), count_VE.max(axis=1)
    share_V = most_V / np.maximum(total_V, 1)
    seen, often = total_V > 0, total_V >= OFTEN
    return np.array(
        [
            share_V[seen].mean() if seen.any() else np.nan,
            share_V[often].mean() if often.any() else np.nan,
            most_V.sum() / total_V.sum() if seen.any() else np.nan,
        ]
    )


@dataclass(frozen=True)
class Vocabulary:
    """Readings: vocabulary_types (the released average, biased up by what stands once),
    vocabulary_frequent, vocabulary_tokens; next_types, next_frequent, next_tokens."""

    draws: int = chance.DRAWS

    def __call__(
        self, trace: Trace, layer: LayerTrace, generator: np.random.Generator
    ) -> list[Reading]:
        """In (0, 1]; the null shuffles the experts among all tokens."""
        found, expert_T = [], chance.first_choice(layer)
        for name, id_T in (("vocabulary", trace.id_T), ("next", trace.target_T)):
            kept = (expert_T < layer.num_experts) & (id_T >= 0)
            ids, experts = id_T[kept], expert_T[kept]
            shape = max(int(id_T.max()) + 1, 1), layer.num_experts
            value = specialisation(ids, experts, shape)
            null = np.array(
                [
                    specialisation(ids, generator.permutation(experts), shape)
                    for _ in range(self.draws)
                ]
            )
            for n, variant in enumerate(VARIANTS):
                found.append(reading(f"{name}_{variant}", value[n], null[:, n]))
        return found
