"""Routing traces: for every token of a text, what each MoE layer of a model did with it.

One record in memory, and one Parquet file on disk, a row a token (`docs/traces.md` has the
columns). Metrics, figures and the explorer read traces alone. Nothing here needs JAX.
"""

import base64
import dataclasses
import os
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from moe import files
from moe.analysis import parquet, trace_rules
from moe.analysis.parquet import Some, Table
from moe.registry import Mistake

SCHEMA = 1
ROWS = 2**16  # of a row group, at least, but for the last
_TOKEN = {
    "id_T": np.int32,
    "target_T": np.int32,
    "position_T": np.int32,
    "document_T": np.int32,
    "desk_T": np.int16,
    "class_T": np.int16,
    "loss_T": np.float32,
}
_LAYER = {"expert_TK": np.int16, "gate_TK": np.float32, "kept_TK": np.bool_, "margin_T": np.float32}


@dataclasses.dataclass(frozen=True)
class About:
    """What a trace was made of.

    Attributes:
      label: its name, as "dense_topk_hash/top2 seed 0".
      study, arm: "" where they are not known.
      seed, step: of the run, and of the checkpoint.
      experiment: the expression that rebuilds the run.
      vocabulary: the text of every id; "" for the end of a document.
      desks, classes: names of the numbers in desk_T and class_T.
      parameters: fingerprint of the model's parameters.
      num_layers: layers of the model, those without experts too.
      text: fingerprint of the tokens and their windows, which `write` fills in: traces that have
        the same one tell of the same tokens, row by row.
      schema: version of the record.
    """

    label: str
    study: str
    arm: str
    seed: int
    step: int
    experiment: str
    vocabulary: tuple[str, ...]
    desks: tuple[str, ...]
    classes: tuple[str, ...]
    parameters: str
    num_layers: int
    text: str = ""
    schema: int = SCHEMA


@dataclasses.dataclass(frozen=True)
class LayerTrace:
    """What one MoE layer did.

    Attributes:
      layer: its depth in the model; 0 is the first block.
      num_experts: E, null experts included.
      router: the class of its router.
      expert_TK: int16, chosen experts, best first, served or not; E is a choice that was not made.
      gate_TK: float32, the weight of each one's output; 0 where the router had no room for it.
      kept_TK: bool, whether it was served: dropped by neither router nor dispatcher.
      margin_T: float32, the least preferred chosen expert over the best of the others, in units of
        what the router chooses by (logits); NaN where it has no such thing or nothing is left.
      sample_S: int32, rising: the tokens whose input is kept.
      input_SD: float32, what the router read of them.
      matrix_DE: float32, the router's matrix where it is linear in its input, else None.
    """

    layer: int
    num_experts: int
    router: str
    expert_TK: np.ndarray
    gate_TK: np.ndarray
    kept_TK: np.ndarray
    margin_T: np.ndarray
    sample_S: np.ndarray
    input_SD: np.ndarray
    matrix_DE: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Trace:
    """T tokens in whole windows of one length, one after the other, and what each layer did.

    Attributes:
      id_T, target_T: int32, the token and the next one; -1 is no next one.
      position_T: int32, in its window.
      document_T: int32, number of its document, different ones of all desks.
      desk_T, class_T: int16, its document's desk and its own word class; -1 is unknown.
      loss_T: float32, nats of the target; NaN where there is none.
    """

    about: About
    id_T: np.ndarray
    target_T: np.ndarray
    position_T: np.ndarray
    document_T: np.ndarray
    desk_T: np.ndarray
    class_T: np.ndarray
    loss_T: np.ndarray
    layers: tuple[LayerTrace, ...]

    @property
    def tokens(self) -> int:
        """T."""
        return len(self.id_T)

    @property
    def length(self) -> int:
        """Tokens of a window."""
        return int(self.position_T.max()) + 1


def join(pieces: Sequence[Trace]) -> Trace:
    """The tokens of one trace's pieces as one piece."""
    if len(pieces) == 1:
        return pieces[0]
    first_P = np.cumsum([0, *(piece.tokens for piece in pieces[:-1])])

    def layer(n):
        of = [piece.layers[n] for piece in pieces]
        rows = [one.sample_S + first for one, first in zip(of, first_P, strict=True)]
        values = {name: np.concatenate([getattr(one, name) for one in of]) for name in _LAYER}
        values["sample_S"] = np.concatenate(rows).astype(np.int32)
        values["input_SD"] = np.concatenate([one.input_SD for one in of])
        return dataclasses.replace(of[0], **values)

    values = {name: np.concatenate([getattr(piece, name) for piece in pieces]) for name in _TOKEN}
    layers = tuple(layer(n) for n in range(len(pieces[0].layers)))
    return dataclasses.replace(pieces[0], layers=layers, **values)


def write(path: str | os.PathLike, pieces: Iterable[Trace]) -> About:
    """Writes the pieces of one trace as they come, and holds about ROWS tokens of them at once.

    Returns what it says of the trace, its `text` filled in. Raises Mistake where there is no token,
    or a piece breaks a rule of the record.
    """
    path, said = pathlib.Path(path), {}
    seen = trace_rules.Checked()

    def groups():
        for piece in _grouped(pieces):
            seen.check(piece, str(path))
            layers = [_facts(layer) for layer in piece.layers]
            if layers != said.setdefault("layers", layers):
                raise Mistake(f"{path}: row {seen.tokens - piece.tokens}: other layers than before")
            said["about"], columns = piece.about, _columns(piece)
            _check_types(path, {n: parquet.type_of(c) for n, c in columns.items()}, layers)
            yield columns
        if not said:
            raise Mistake(f"{path}: a trace must have a token, has none")

    def record():
        said["about"] = dataclasses.replace(said["about"], text=seen.fingerprint(said["about"]))
        return {"about": dataclasses.asdict(said["about"]), "layers": said["layers"]}

    parquet.write(path, groups(), record)
    return said["about"]


def read(path: str | os.PathLike) -> Trace:
    """The whole trace; raises Mistake, one line, as `pieces` does."""
    return join(list(pieces(path)))


def pieces(path: str | os.PathLike) -> Iterator[Trace]:
    """The trace row group by row group, each a trace of some windows' tokens.

    Raises Mistake, one line, for a file that is cut off, changed, or of another schema.
    """
    about, facts, table = _opened(path)
    for columns in table.groups():
        layers = tuple(_layer(columns, fact) for fact in facts)
        yield Trace(about, **{name: columns[name[:-2]] for name in _TOKEN}, layers=layers)


def validate(path: str | os.PathLike) -> About:
    """Reads all of a trace in bounded memory; raises Mistake, one line, at what breaks a rule."""
    about, seen = _opened(path)[0], trace_rules.Checked()
    for piece in pieces(path):
        seen.check(piece, str(path))
    if not seen.tokens:
        raise Mistake(f"{path}: a trace must have a token, has none")
    if (found := seen.fingerprint(about)) != about.text:
        raise Mistake(f"{path}: about.text={about.text}: must be {found}, which its tokens have")
    return about


def about(path: str | os.PathLike) -> About:
    """What a trace was made of; raises Mistake, one line, as `pieces` does."""
    return _opened(path)[0]


def _opened(path: str | os.PathLike) -> tuple[About, list[dict[str, Any]], Table]:
    """What it says of the whole and of each layer, and its table, whose columns are those."""
    table = Table(path)
    try:
        said, facts = table.record["about"], table.record["layers"]
        if said["schema"] != SCHEMA:
            raise files.Unreadable(path, f"schema={said['schema']}: must be {SCHEMA}")
        lists = {key: tuple(value) for key, value in said.items() if isinstance(value, list)}
        about = About(**{**said, **lists})
        _check_types(path, table.types, facts)
    except (KeyError, TypeError, AttributeError) as error:
        why = f"is no trace ({files.one_line(error)})"
        raise files.Unreadable(path, why) from None
    return about, facts, table


def _check_types(path: Any, types: dict[str, str], facts: list[dict[str, Any]]) -> None:
    """Raises Unreadable unless the columns are those of layers of these facts."""
    wanted = _types(facts)
    for name in [*wanted, *types]:
        found, rule = (of.get(name, "not there") for of in (types, wanted))
        if found != rule:
            raise files.Unreadable(path, f"column {name} is {found}: must be {rule}")


def _types(facts: list[dict[str, Any]]) -> dict[str, str]:
    """The columns that layers of these facts have."""
    columns: parquet.Columns = {name[:-2]: np.zeros(0, kind) for name, kind in _TOKEN.items()}
    for fact in facts:
        n, K = fact["layer"], fact["k"]
        shapes = {name: (0, K) if name.endswith("TK") else (0,) for name in _LAYER}
        columns |= {_at(name, n): np.zeros(shapes[name], _LAYER[name]) for name in _LAYER}
        columns[f"input_{n}"] = Some(np.zeros(0, np.int32), np.zeros((0, 1), np.float32))
    return {name: parquet.type_of(value) for name, value in columns.items()}


def _at(name: str, layer: int) -> str:
    """The column of a field of that layer."""
    return f"{name.split('_')[0]}_{layer}"


def _grouped(pieces: Iterable[Trace]) -> Iterator[Trace]:
    """Pieces of at least ROWS tokens, but for the last."""
    held, tokens = [], 0
    for piece in pieces:
        held.append(piece)
        tokens += piece.tokens
        if tokens >= ROWS:
            yield join(held)
            held, tokens = [], 0
    if held:
        yield join(held)


def _columns(piece: Trace) -> parquet.Columns:
    columns: parquet.Columns = {name[:-2]: getattr(piece, name) for name in _TOKEN}
    for layer in piece.layers:
        n = layer.layer
        columns |= {_at(name, n): getattr(layer, name) for name in _LAYER}
        columns[f"input_{n}"] = Some(layer.sample_S, layer.input_SD)
    return columns


def _facts(layer: LayerTrace) -> dict[str, Any]:
    """What is said of a layer once."""
    matrix, w_DE = None, layer.matrix_DE
    if w_DE is not None:
        matrix = base64.b64encode(np.ascontiguousarray(w_DE, "<f4").tobytes()).decode()
    return {
        "layer": layer.layer,
        "num_experts": layer.num_experts,
        "router": layer.router,
        "k": layer.expert_TK.shape[1],
        "width": layer.input_SD.shape[1],
        "matrix": matrix,
    }


def _layer(columns: parquet.Columns, fact: dict[str, Any]) -> LayerTrace:
    n, E, D = fact["layer"], fact["num_experts"], fact["width"]
    some, w_DE = columns[f"input_{n}"], None
    if fact["matrix"] is not None:
        w_DE = np.frombuffer(base64.b64decode(fact["matrix"]), "<f4").reshape(D, E)
    values = {name: columns[_at(name, n)] for name in _LAYER}
    inputs = {"sample_S": some.row_S, "input_SD": some.value_SD.reshape(-1, D)}
    return LayerTrace(n, E, fact["router"], **values, **inputs, matrix_DE=w_DE)
