"""The rules of a trace's rows, checked before they are written and after they are read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from moe.registry import Mistake

if TYPE_CHECKING:
    from moe.analysis.trace import About, LayerTrace, Trace


class Checked:
    """A trace that comes in pieces: their tokens so far, their windows and their fingerprint."""

    def __init__(self):
        self.tokens, self._length = 0, 0
        self._of = {name: hashlib.sha256() for name in ("id_T", "target_T", "position_T")}

    def check(self, piece: Trace, called: str) -> None:
        """Takes the next piece in; raises Mistake, one line, where it breaks a rule."""
        self._length = self._length or piece.length
        check(piece, self.tokens, self._length, called)
        self.tokens += piece.tokens
        for name, hashed in self._of.items():
            hashed.update(np.ascontiguousarray(getattr(piece, name), "<i4").tobytes())

    def fingerprint(self, about: About) -> str:
        """SHA-256 of the vocabulary, the ids and their places."""
        parts = [repr(about.vocabulary), *(hashed.hexdigest() for hashed in self._of.values())]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


class Rule(NamedTuple):
    """What a column must hold: good is bool, of its values' shape or of their tokens'."""

    name: str
    value: np.ndarray
    good: np.ndarray
    says: str


def check(piece: Trace, first: int, length: int, called: str) -> None:
    """Raises Mistake, one line, at the first row that breaks a rule.

    Args:
      first: number of the piece's first row in its trace.
      length: tokens of a window.
      called: what the line begins with.
    """
    T = piece.tokens
    for name, value in _arrays(piece):
        if len(value) != T:
            raise Mistake(f"{called}: {name} has {len(value)} rows: must have {T}, as id")
    if T % length:
        raise Mistake(f"{called}: {T} rows from row {first}: must be whole windows of {length}")
    for rule in _rules(piece, length):
        good_T = rule.good.reshape(len(rule.good), -1).all(axis=1)
        if not good_T.all():
            row = int(np.argmin(good_T))
            value = np.asarray(rule.value[row]).tolist()
            raise Mistake(f"{called}: row {first + row}: {rule.name}={value}: must be {rule.says}")


def _arrays(piece: Trace) -> Iterator[tuple[str, np.ndarray]]:
    for name in ("target", "position", "document", "desk", "class", "loss"):
        yield name, getattr(piece, f"{name}_T")
    for layer in piece.layers:
        for name in ("expert_TK", "gate_TK", "kept_TK", "margin_T"):
            yield f"{name.split('_')[0]}_{layer.layer}", getattr(layer, name)


def _rules(piece: Trace, length: int) -> Iterator[Rule]:
    about = piece.about
    V, Y, W = len(about.vocabulary), len(about.desks), len(about.classes)
    position_T = np.arange(piece.tokens) % length
    yield _within("id", piece.id_T, 0, V)
    yield _within("target", piece.target_T, -1, V)
    yield Rule("position", piece.position_T, piece.position_T == position_T, "that in its window")
    yield Rule("document", piece.document_T, piece.document_T >= 0, "at least 0")
    yield _within("desk", piece.desk_T, -1, Y)
    yield _within("class", piece.class_T, -1, W)
    there_T = np.where(piece.target_T >= 0, piece.loss_T >= 0, np.isnan(piece.loss_T))
    finite_T = np.isfinite(piece.loss_T) | (piece.target_T < 0)
    says = "finite and at least 0, or NaN without a target"
    yield Rule("loss", piece.loss_T, there_T & finite_T, says)
    for layer in piece.layers:
        yield from _layer_rules(layer)


def _within(name: str, value: np.ndarray, low: int, high: int) -> Rule:
    return Rule(name, value, (value >= low) & (value < high), f"in [{low}, {high})")


def _layer_rules(layer: LayerTrace) -> Iterator[Rule]:
    n, E = layer.layer, layer.num_experts
    expert_TK, gate_TK, margin_T = layer.expert_TK, layer.gate_TK, layer.margin_T
    made_TK = (expert_TK >= 0) & (expert_TK < E)
    sort_TK = np.sort(expert_TK, axis=1)
    twice_TK = (sort_TK[:, 1:] == sort_TK[:, :-1]) & (sort_TK[:, 1:] < E)
    yield Rule(f"expert_{n}", expert_TK, made_TK | (expert_TK == E), f"in [0, {E}]")
    yield Rule(f"expert_{n}", expert_TK, ~twice_TK.any(axis=1), "different experts")
    yield Rule(f"gate_{n}", gate_TK, np.isfinite(gate_TK), "finite")
    yield Rule(f"gate_{n}", gate_TK, made_TK | (gate_TK == 0), "0 for a choice that was not made")
    says = "false for a choice that was not made"
    yield Rule(f"kept_{n}", layer.kept_TK, made_TK | ~layer.kept_TK, says)
    good_T = np.isnan(margin_T) | ((margin_T >= 0) & np.isfinite(margin_T))
    yield Rule(f"margin_{n}", margin_T, good_T, "finite and at least 0, or NaN")
    finite_S = np.isfinite(layer.input_SD)
    yield Rule(f"input_{n} of a sampled token", layer.input_SD, finite_S, "finite")
