"""Does a hash table that was built on one text spread the load of another?"""

from typing import Any

import numpy as np

from moe.analysis import load
from moe.data.counts import Corpus


def table_load(expert_VK: np.ndarray, count_V: np.ndarray, E: int) -> np.ndarray:
    """Assignments per expert (load_E) when row v of the table is used count_V[v] times."""
    weight_VK = np.broadcast_to(np.asarray(count_V, np.float64)[:, None], expert_VK.shape)
    return np.bincount(np.ravel(expert_VK), weights=np.ravel(weight_VK), minlength=E)


def drift(build_E: np.ndarray, other_E: np.ndarray) -> float:
    """Total variation between two loads, in [0, 1]: the share of assignments that would move."""
    return float(np.abs(load.fractions(build_E) - load.fractions(other_E)).sum() / 2)


def report(key: Any, expert_VK: np.ndarray, corpus: Corpus, held_out_E: np.ndarray) -> dict:
    """Load of a table on the text that it was built on, and how far held-out text is from it.

    Args:
      key: the hash layer's key, a `moe.routers.parts.keys.Key`.
      expert_VK: its table.
      corpus: the text that it was built on.
      held_out_E: measured load on held-out text.
    """
    build_E = table_load(expert_VK, key.count(corpus), len(held_out_E))
    return {
        "build_max_violation": float(load.max_violation(build_E)),
        "held_out_max_violation": float(load.max_violation(held_out_E)),
        "drift": drift(build_E, held_out_E),
    }
