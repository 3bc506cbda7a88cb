"""How much a label tells of the expert: load entropy given it, and uncertainty coefficients.

An assignment is a sample, so with k choices a label that fixes the whole set of experts still
leaves the logarithm of its size: the coefficient divides by what is left to tell.
U(e|y) = I(e; y) / (H(e) - <ln k>), Theil's coefficient for k = 1.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy import stats

from moe.analysis import chance
from moe.analysis.contract import Reading, absent, reading
from moe.analysis.trace import LayerTrace, Trace

LABELS = ("desk", "class", "token", "position")


def entropy(count: np.ndarray) -> float:
    """Of counts, in nats; 0 of none."""
    return float(stats.entropy(count.ravel())) if count.any() else 0.0


def told(count: np.ndarray) -> float:
    """Mutual information in nats of a table of counts; raw, so above 0 by chance alone."""
    return entropy(count.sum(axis=1)) + entropy(count.sum(axis=0)) - entropy(count)


def ceiling(expert_TK: np.ndarray, E: int) -> float:
    """Most that a label can tell of an assignment: H(e) less ln of the size of the token's set."""
    size_T = (expert_TK < E).sum(axis=1)
    load_E = np.bincount(expert_TK.ravel(), minlength=E + 1)[:E]
    chosen = size_T[size_T > 0]
    return entropy(load_E) - float((chosen * np.log(chosen)).sum() / max(1, chosen.sum()))


def labels(trace: Trace) -> Iterator[tuple[str, np.ndarray, Callable]]:
    """Name, label_T, and what deals it anew, given a generator."""
    by_unit, id_T = chance.by_unit, trace.id_T
    desk_T, class_T = trace.desk_T, trace.class_T
    yield "desk", desk_T, lambda generator: by_unit(desk_T, trace.document_T, generator)
    yield "class", class_T, lambda generator: by_unit(class_T, id_T, generator)
    yield "token", id_T, lambda generator: generator.permutation(id_T)
    yield "position", trace.position_T, lambda generator: chance.turned(trace, generator)


@dataclass(frozen=True)
class Information:
    """Readings: entropy, and for each label y entropy_given_y and u_y."""

    draws: int = chance.DRAWS

    def __call__(
        self, trace: Trace, layer: LayerTrace, generator: np.random.Generator
    ) -> list[Reading]:
        """Entropies over ln E, in [0, 1]; coefficients in [0, 1]."""
        E, expert_TK = layer.num_experts, layer.expert_TK
        token_R, rank_R = np.nonzero(expert_TK < E)
        expert_R = expert_TK[token_R, rank_R].astype(np.int64)
        names = [name for y in LABELS for name in (f"entropy_given_{y}", f"u_{y}")]
        if E == 1 or not len(expert_R):
            return absent("entropy", *names)
        even = [
            entropy(generator.multinomial(len(expert_R), np.full(E, 1 / E)))
            for _ in range(self.draws)
        ]
        load_E = np.bincount(expert_R, minlength=E)
        shares = load_E / load_E.sum()
        found = [
            reading("entropy", entropy(load_E) / np.log(E), even / np.log(E), {"share": shares})
        ]
        most = ceiling(expert_TK, E)
        for name, label_T, dealt in labels(trace):
            known_R = label_T[token_R] >= 0
            names = f"entropy_given_{name}", f"u_{name}"
            if not known_R.any():
                found += absent(*names)
                continue
            token, expert = token_R[known_R], expert_R[known_R]
            shape = int(label_T.max()) + 1, E
            whole = entropy(np.bincount(expert, minlength=E))
            value = told(chance.table(label_T[token], expert, shape))
            null = np.empty(self.draws)
            for n in range(self.draws):
                other = dealt(generator)[token_R]
                kept = other >= 0
                null[n] = told(chance.table(other[kept], expert_R[kept], shape))
            found.append(reading(names[0], (whole - value) / np.log(E), (whole - null) / np.log(E)))
            found.append(
                reading(names[1], value / most, null / most)
                if most > 1e-9
                else Reading(names[1], None)
            )
        return found
