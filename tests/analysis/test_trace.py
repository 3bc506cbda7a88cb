"""Traces on disk: what is written is read, and what was changed, cut or never was one is told."""

import dataclasses
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from moe.analysis import parquet, trace, trace_rules
from moe.registry import Mistake
from tests.fakes import traces


def equal(one, other):
    """Whether two records hold the same, arrays bit by bit."""
    for field in dataclasses.fields(one):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if isinstance(a, tuple) and a and dataclasses.is_dataclass(a[0]):
            assert len(a) == len(b)
            for x, y in zip(a, b, strict=True):
                equal(x, y)
        elif isinstance(a, np.ndarray):
            np.testing.assert_array_equal(a, b, strict=True)
        elif field.name != "about":
            assert a == b


def test_what_is_written_is_read(tmp_path):
    made = traces.random()
    about = trace.write(tmp_path / "t", [made])
    found = trace.read(tmp_path / "t")
    equal(made, found)
    assert found.about == about == trace.validate(tmp_path / "t") == trace.about(tmp_path / "t")
    assert dataclasses.replace(about, text="") == made.about
    assert [p.name for p in tmp_path.iterdir()] == ["t"]
    assert (found.tokens, found.length) == (48, 8)


def like(first, other):
    """The other trace, of a model with the first one's matrices."""
    pairs = zip(first.layers, other.layers, strict=True)
    layers = (dataclasses.replace(b, matrix_DE=a.matrix_DE) for a, b in pairs)
    return dataclasses.replace(other, layers=tuple(layers))


def test_pieces_of_one_trace_are_joined_and_samples_keep_their_tokens(tmp_path, monkeypatch):
    monkeypatch.setattr(trace, "ROWS", 80)  # 48 + 48 >= 80, so row groups have 96, 96 and 48 rows
    first = traces.random()
    pieces = [first, *(like(first, traces.random(seed)) for seed in range(1, 5))]
    trace.write(tmp_path / "t", iter(pieces))
    assert [piece.tokens for piece in trace.pieces(tmp_path / "t")] == [96, 96, 48]
    found = trace.read(tmp_path / "t")
    assert found.tokens == 240
    np.testing.assert_array_equal(found.id_T[192:], pieces[4].id_T)
    own, last = pieces[4].layers[1], found.layers[1]
    np.testing.assert_array_equal(last.sample_S[-24:], own.sample_S + 192)
    np.testing.assert_array_equal(last.input_SD[-24:], own.input_SD)
    assert trace.validate(tmp_path / "t").text == found.about.text


def test_the_fingerprint_of_a_text_is_that_of_its_tokens_not_of_what_a_model_did(tmp_path):
    a, b, other = traces.random(0), traces.random(1), traces.random(0)
    same = dataclasses.replace(b, id_T=a.id_T, target_T=a.target_T)
    other = dataclasses.replace(other, id_T=np.roll(a.id_T, 1))
    texts = [trace.write(tmp_path / "t", [one]).text for one in (a, same, other, b)]
    assert texts[0] == texts[1]
    assert len(set(texts)) == 3


def refusal(path):
    """What `validate` and `read` say of a file, which must be one line that names it."""
    with pytest.raises(Mistake) as told:
        trace.validate(path)
    with pytest.raises(Mistake, match=f"^{path}: "):
        trace.read(path)
    line = str(told.value)
    assert "\n" not in line
    return line.removeprefix(f"{path}: ")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "t"
    trace.write(path, [traces.random()])
    return path.read_bytes()


def test_any_changed_byte_is_told(tmp_path, whole):
    path = tmp_path / "t"
    for place in [*range(0, len(whole) - 8, len(whole) // 60), len(whole) - 9]:
        changed = bytearray(whole)
        changed[place] ^= 1
        path.write_bytes(changed)
        assert "seal" in refusal(path), place


@pytest.mark.parametrize("share", [0, 0.5, 0.99])
def test_a_trace_that_is_cut_off_is_told(tmp_path, whole, share):
    (tmp_path / "t").write_bytes(whole[: int(share * len(whole))])
    assert refusal(tmp_path / "t") == "is cut off, or no Parquet file"


def test_what_is_no_trace_is_told(tmp_path):
    path = tmp_path / "t"
    assert refusal(path) == "cannot be read (No such file or directory)"
    parquet.write(path, [{"id": np.zeros(3, np.int32)}], lambda: {"about": {}})
    assert refusal(path) == "is no trace (KeyError: 'layers')"
    said = dataclasses.asdict(dataclasses.replace(traces.about(), schema=2))
    parquet.write(path, [{"id": np.zeros(3)}], lambda: {"about": said, "layers": []})
    assert refusal(path) == "schema=2: must be 1"
    said["schema"] = 1
    parquet.write(path, [{"id": np.zeros(3)}], lambda: {"about": said, "layers": []})
    assert refusal(path) == "column id is float64: must be int32"
    pq.write_table(pa.table({"a": [1]}), path)
    assert refusal(path) == "has no seal: it is no table of ours"


# Each: what is changed in the trace of two windows of four tokens, and the rest of the line.
LINES = {
    "id": ({"id_T": [0, 1, 8, 3, 4, 5, 6, 7]}, "row 2: id=8: must be in [0, 8)"),
    "target": ({"target_T": [-2] * 8}, "row 0: target=-2: must be in [-1, 8)"),
    "position": ({"position_T": [0, 1, 2, 3, 0, 1, 3, 3]}, "row 6: position=3: must be that"),
    "document": ({"document_T": [0] * 7 + [-1]}, "row 7: document=-1: must be at least 0"),
    "desk": ({"desk_T": [2] * 8}, "row 0: desk=2: must be in [-1, 2)"),
    "class": ({"class_T": [3] * 8}, "row 0: class=3: must be in [-1, 3)"),
    "nan": ({"loss_T": [1, np.nan] * 4}, "row 1: loss=nan: must be finite and at least 0, or NaN"),
    "infinite": ({"loss_T": [np.inf] * 8}, "row 0: loss=inf: must be finite"),
    "no target": ({"target_T": [-1] * 8}, "row 0: loss=1.0: must be finite and at least 0, or NaN"),
    "short": ({"loss_T": [1] * 7}, "loss has 7 rows: must have 8, as id"),
    "half a window": (
        {"position_T": [0, 1, 2, 3, 4, 5, 6, 0]},
        "8 rows from row 0: must be whole windows of 7",
    ),
}
LAYER_LINES = {
    "expert": ({"expert_TK": [[0, 5]] * 8}, "row 0: expert_0=[0, 5]: must be in [0, 4]"),
    "twice": ({"expert_TK": [[1, 1]] * 8}, "row 0: expert_0=[1, 1]: must be different experts"),
    "gate": (
        {"gate_TK": np.full((8, 2), np.nan, np.float32)},
        "row 0: gate_0=[nan, nan]: must be finite",
    ),
    "unmade": (
        {"expert_TK": [[0, 4]] * 8, "gate_TK": np.full((8, 2), 0.5, np.float32)},
        "row 0: gate_0=[0.5, 0.5]: must be 0 for a choice that was not made",
    ),
    "kept": (
        {"expert_TK": [[0, 4]] * 8, "kept_TK": np.ones((8, 2), bool)},
        "row 0: kept_0=[True, True]: must be false for a choice that was not made",
    ),
    "margin": (
        {"margin_T": np.full(8, -1, np.float32)},
        "row 0: margin_0=-1.0: must be finite and at least 0",
    ),
    "type": ({"gate_TK": np.ones((8, 2))}, "column gate_0 is float64[2]: must be float32[2]"),
    "input": (
        {"input_SD": np.full((2, 2), np.inf, np.float32)},
        "row 0: input_0 of a sampled token=[inf, inf]",
    ),
}


@pytest.mark.parametrize("changes, line", LINES.values(), ids=LINES)
def test_a_token_that_breaks_a_rule_is_told(tmp_path, changes, line):
    made = traces.trace(traces.layer([[0, 1]] * 8), **changes)
    with pytest.raises(Mistake, match=re.escape(f"{tmp_path / 't'}: {line}")):
        trace.write(tmp_path / "t", [made])
    assert not list(tmp_path.iterdir())  # nothing half written stays


@pytest.mark.parametrize("changes, line", LAYER_LINES.values(), ids=LAYER_LINES)
def test_a_layer_that_breaks_a_rule_is_told(tmp_path, changes, line):
    made = traces.trace(traces.layer(**{"expert_TK": [[0, 1]] * 8} | changes))
    with pytest.raises(Mistake, match=re.escape(f"{tmp_path / 't'}: {line}")):
        trace.write(tmp_path / "t", [made])


def test_rules_hold_of_what_is_read_as_well(tmp_path, monkeypatch):
    bad = traces.trace(traces.layer([[0, 1]] * 8), id_T=[8] * 8)
    with monkeypatch.context() as patch:
        patch.setattr(trace_rules, "check", lambda *a: None)
        trace.write(tmp_path / "t", [bad])
    with pytest.raises(Mistake, match="row 0: id=8"):
        trace.validate(tmp_path / "t")


def test_pieces_of_other_layers_are_told(tmp_path, monkeypatch):
    monkeypatch.setattr(trace, "ROWS", 1)
    pieces = [traces.random(k=1), traces.random(k=2)]
    with pytest.raises(Mistake, match="row 48: other layers than before"):
        trace.write(tmp_path / "t", pieces)


def test_no_token_is_no_trace(tmp_path):
    with pytest.raises(Mistake, match="a trace must have a token, has none"):
        trace.write(tmp_path / "t", [])
    assert not list(tmp_path.iterdir())
