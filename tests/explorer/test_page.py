"""The page as text: what is in it, what is refused, how large it is."""

import base64
import dataclasses
import json
import re

import numpy as np
import pytest

from experiments.explorer import counted, explorer, payload
from experiments.report.page.routing import routing as section
from experiments.results import routing
from experiments.text import shown
from moe.registry import Mistake
from tests.fakes import spoken
from tests.fakes.study import Page

ALL = (spoken.learned, spoken.hashed)


@pytest.fixture(scope="module")
def read():
    return counted.read([make() for make in ALL])


@pytest.fixture(scope="module")
def text(read):
    return explorer.html(read)[0]


def content(text):
    (found,) = re.findall(r'<script type="application/json" id="payload">(.*)</script>', text)
    return json.loads(found)


def codes(packed):
    kind = {"u8": np.uint8, "u16": "<u2", "u32": "<u4"}[packed["type"]]
    return np.frombuffer(base64.b64decode(packed["data"]), kind)


def test_the_payload_holds_the_tokens_and_what_became_of_them(text):
    held = content(text)
    words = [held["vocabulary"][i] for i in codes(held["text"]["id"])]
    assert words == [spoken.VOCABULARY[i] for i in spoken.ids()]
    one, other = held["runs"]
    assert one["label"] == "learned seed 0" and one["layers"][0]["depth"] == 1
    expert_TK = spoken.learned().layers[0].expert_TK
    assert codes(one["layers"][0]["expert"]).tolist() == expert_TK.reshape(-1).tolist()
    gate = one["layers"][0]["gate"]
    assert gate["zero"] + gate["step"] * codes(gate)[:2] == pytest.approx([0.75, 0.25])
    assert other["layers"][0]["lost"] is None
    lost = np.unpackbits(np.frombuffer(base64.b64decode(one["layers"][0]["lost"]["data"]), "u1"))
    assert lost.sum() == 2 * (spoken.ids() == 9).sum()
    assert (codes(other["layers"][0]["margin"]) == 65535).all()


def test_the_page_loads_nothing_and_hostile_text_stays_text(text):
    page = Page(text)
    assert page.loads == [] and page.links == []
    assert page.tags.count("script") == 2 and "img" not in page.tags
    assert "default-src 'none'" in text
    for token in ("<!--", "</script><", "\u2028", "\u202e"):
        assert token not in text
    assert set(spoken.HOSTILE) <= set(content(text)["vocabulary"])


def test_names_from_a_trace_are_escaped():
    one = spoken.learned()
    named = dataclasses.replace(one.about, arm="<svg onload=x>", label="<svg onload=x> seed 0")
    text, _ = explorer.html(counted.read([dataclasses.replace(one, about=named), spoken.hashed()]))
    assert "<svg" not in text and "&lt;svg onload=x&gt; seed 0" in text


def test_the_same_traces_give_the_same_page(text):
    assert explorer.html(counted.read([make() for make in ALL]))[0] == text


def test_a_page_has_as_many_passages_as_fit(read):
    tokens = payload.text(read, 10**6)[1]
    assert tokens == spoken.HAS
    limit = len(json.dumps(payload.payload(read, read.found[:3], 0), separators=(",", ":"))) + 99
    less, fewer = payload.text(read, limit)
    assert len(less) <= limit and 0 < fewer < tokens
    assert fewer % spoken.LENGTH == 0
    start = json.loads(less)["start"]
    assert json.loads(less)["passages"][start["passage"]]["window"] == 0
    with pytest.raises(Mistake, match="2 runs do not fit into 1,000 bytes; name fewer"):
        payload.text(read, 1000)


def other_text(one):
    return dataclasses.replace(one, id_T=(one.id_T + 1) % 32)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda: [spoken.dense()], "no trace of a model with experts"),
        (lambda: [spoken.learned(), spoken.learned()], "words/learned seed 0 was given twice"),
        (
            lambda: [spoken.learned(), other_text(spoken.hashed())],
            "words/hashed seed 0: is not traced over the text of words/learned seed 0",
        ),
    ],
)
def test_traces_that_do_not_go_together_are_refused_in_one_line(made, said):
    with pytest.raises(Mistake, match=said) as raised:
        counted.read(made())
    assert "\n" not in str(raised.value)


def test_a_study_tells_its_report_what_each_expert_was_given(tmp_path, read):
    tokens = explorer.write(tmp_path / routing.PAGE, [make() for make in ALL])
    assert tokens == spoken.HAS
    assert (tmp_path / routing.PAGE).stat().st_size <= explorer.BYTES
    found = routing.read(tmp_path)
    assert found.finding == read.finding.sentence and found.traced == spoken.HAS
    assert [(s.run, s.layer, s.expert) for s in found.samples] == [
        (run, 3, e) for run in ("learned seed 0", "hashed seed 0") for e in range(4)
    ]
    assert found.samples[4].share == 0.25  # a quarter of the ids, each as often as the others
    assert set(found.samples[4].tokens) == set(spoken.VOCABULARY[:7])  # the eighth is \\ufffd
    told = section(found)
    page = Page(told)
    assert page.links == [routing.PAGE] and "img" not in page.tags
    assert "⟨U+202E⟩abc⟨U+200F⟩" in page.text and "25\u00a0%" in page.text


def test_another_name_leaves_the_report_alone(tmp_path):
    explorer.write(tmp_path / "mine.html", [spoken.learned()])
    assert [path.name for path in tmp_path.iterdir()] == ["mine.html"]
    assert routing.read(tmp_path) is None and section(None) == ""


def test_a_changed_digit_is_told_in_one_line(tmp_path):
    explorer.write(tmp_path / routing.PAGE, [spoken.learned()])
    path = tmp_path / routing.FILE
    path.write_text(path.read_text().replace('"share": 0.25', '"share": 0.26', 1))
    with pytest.raises(Mistake, match="its seal does not fit.*; analyze the runs again"):
        routing.read(tmp_path)
    (tmp_path / routing.PAGE).unlink()  # nothing to link to
    assert routing.read(tmp_path) is None


def test_a_token_is_shown_with_what_has_no_shape():
    assert shown("  a b ") == "␣␣a b␣" and shown("\n" + 12 * " ") == "↵␣×12"
    assert shown("") == "⟨end⟩" and shown("\u2028\t\ufffd") == "⟨U+2028⟩⇥▯"
    assert shown("     ") == "␣×5"


def test_of_many_runs_each_arm_has_as_many_on_the_page():
    abouts = [spoken.said(arm, seed) for arm in "abcde" for seed in range(3)]
    # Twelve of fifteen: the first two of all five arms, the third of the first two.
    third = {8, 11, 14}  # of c, d and e
    assert explorer.choose(abouts) == [i for i in range(15) if i not in third]
    assert explorer.choose(abouts[:3]) == [0, 1, 2]
