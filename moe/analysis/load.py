"""How evenly experts are used: entropy, worst overload, dead experts (Wang et al., 2408.15664)."""

import numpy as np


def fractions(load_E: np.ndarray) -> np.ndarray:
    """Load per expert as a share of all assignments; the last axis sums to 1 (0 without load)."""
    load_E = np.asarray(load_E, np.float64)
    return load_E / np.maximum(load_E.sum(axis=-1, keepdims=True), 1e-300)


def load_entropy(load_E: np.ndarray) -> np.ndarray:
    """-sum f ln f / ln E over the last axis: 1 is even, 0 is one expert; 1 for E = 1."""
    f_E = fractions(load_E)
    if f_E.shape[-1] == 1:
        return np.ones(f_E.shape[:-1])
    logs_E = np.log(np.where(f_E > 0, f_E, 1))
    # Adding 0 turns the -0.0 of a single used expert into 0.0.
    return -(f_E * logs_E).sum(axis=-1) / np.log(f_E.shape[-1]) + 0.0


def max_violation(load_E: np.ndarray) -> np.ndarray:
    """Load of the busiest expert over the mean load, minus 1: 0 is even, E - 1 the worst."""
    f_E = fractions(load_E)
    return f_E.max(axis=-1) * f_E.shape[-1] - 1


def dead_experts(load_E: np.ndarray) -> np.ndarray:
    """How many experts get less than 1 % of an even share."""
    f_E = fractions(load_E)
    return (f_E < 0.01 / f_E.shape[-1]).sum(axis=-1)
