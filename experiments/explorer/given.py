"""What each expert was given: its share of the tokens, by desk, and the tokens it has most of."""

from typing import NamedTuple

import numpy as np

from moe.analysis.trace import LayerTrace, Trace


class Given(NamedTuple):
    """What the experts of one layer were given, dropped or not.

    Attributes:
      share_E: of all choices.
      share_YE: of the choices that tokens of each desk made.
      top_EM: ids, the most telling first; -1 where there are no more.
      had_EM: how many tokens of that id chose it.
    """

    share_E: np.ndarray
    share_YE: np.ndarray
    top_EM: np.ndarray
    had_EM: np.ndarray


def given(trace: Trace, layer: LayerTrace, most: int) -> Given:
    """Counts one layer; `most` ids for each expert.

    An id tells of an expert as far as the expert has more of it than its share p of all tokens:
    by (had - n p) / sqrt(n p (1 - p)) for its n occurrences, above 0. So neither frequent ids nor
    those that stand once come first by themselves.
    """
    E, V = layer.num_experts, len(trace.about.vocabulary)
    made_TK = layer.expert_TK < E
    K = layer.expert_TK.shape[1]
    expert_R = layer.expert_TK[made_TK].astype(np.int64)
    id_R = np.repeat(trace.id_T, K)[made_TK.reshape(-1)].astype(np.int64)
    desk_R = np.repeat(trace.desk_T, K)[made_TK.reshape(-1)].astype(np.int64)
    Y = len(trace.about.desks)
    known_R = desk_R >= 0
    load_YE = np.bincount(desk_R[known_R] * E + expert_R[known_R], minlength=Y * E).reshape(Y, E)
    load_E = np.bincount(expert_R, minlength=E)
    had_EV = np.bincount(expert_R * V + id_R, minlength=E * V).reshape(E, V)
    top_EM, had_EM = _telling(had_EV, np.bincount(trace.id_T, minlength=V), trace.tokens, most)
    return Given(_shares(load_E), _shares(load_YE), top_EM, had_EM)


def _telling(had_EV, count_V, tokens: int, most: int) -> tuple[np.ndarray, np.ndarray]:
    """The ids of each expert that stand highest over its share, and their counts."""
    most = min(most, len(count_V))
    p_E1 = had_EV.sum(1, keepdims=True) / max(1, tokens)
    expected_EV = count_V[None, :] * p_E1
    spread_EV = np.sqrt(np.maximum(expected_EV * (1 - p_E1), 1e-12))
    score_EV = np.where(had_EV > 0, (had_EV - expected_EV) / spread_EV, -np.inf)
    top_EM = np.argsort(-score_EV, axis=1, kind="stable")[:, :most]
    above_EM = np.take_along_axis(score_EV, top_EM, 1) > 1e-9
    had_EM = np.take_along_axis(had_EV, top_EM, 1)
    return np.where(above_EM, top_EM, -1), np.where(above_EM, had_EM, 0)


def _shares(load: np.ndarray) -> np.ndarray:
    return load / np.maximum(load.sum(-1, keepdims=True), 1)
