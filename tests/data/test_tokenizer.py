"""Byte-level BPE and bytes: exact both ways, the same every time."""

import json
import re
import time

import numpy as np
import pytest

from moe.data import tokenizer

TEXTS = [
    "low lower lowest, low lower lowest\n",
    "def f(x):\n        return  x\n\t# <|end|> \r\n",
    "Ничего не найдено. 日本語のテキスト。 العربية हिन्दी ไทย 한국어 ქართული",
    "e\u0301 \ufeff\x00\x1f \u2028 🧪👩‍🔬 \U0010ffff",
    "",
]


@pytest.fixture(scope="module")
def bpe():
    return tokenizer.train(TEXTS[:3] * 3, 300)


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("kind", ["bpe", "bytes"])
def test_round_trip_is_exact(bpe, kind, text):
    coder = bpe if kind == "bpe" else tokenizer.Tokenizer(tokenizer.BYTES)
    ids = coder.encode(text)
    assert ids.dtype == np.uint16 and coder.end not in ids
    assert coder.decode(ids) == text
    assert coder.decode([*ids, coder.end]) == text
    assert coder.byte_V[ids].sum() == len(text.encode())


@pytest.mark.parametrize(
    "text", ["a" * 5000, " " * 2999 + "\n", "x " * 9 + "é" * 1001 + " low" * 400]
)
def test_long_runs_are_cut_and_nothing_is_lost(bpe, text):
    parts = tokenizer._parts(text)
    assert "".join(parts) == text and len(parts) > 1
    longest = max(len(run) for part in parts for run in re.findall(r"\S+|\s+", part))
    assert longest <= tokenizer.RUN
    ids = bpe.encode(text)
    assert bpe.decode(ids) == text
    assert tokenizer._parts(TEXTS[0] * 200) == [TEXTS[0] * 200]  # breaks enough


def test_few_characters_at_once_are_the_same_ids(bpe, monkeypatch):
    texts = [*TEXTS, TEXTS[1] * 3]
    whole = bpe.encode_all(texts)
    monkeypatch.setattr(tokenizer, "AT_ONCE", 20)
    for ids, again in zip(whole, bpe.encode_all(texts), strict=True):
        np.testing.assert_array_equal(ids, again)


def test_one_long_run_does_not_take_quadratic_time():
    start = time.perf_counter()
    coder = tokenizer.train(["ab" * 500_000, "low lower " * 9], 258)  # uncut: more than a minute
    coder.encode("ab" * 500_000)
    assert time.perf_counter() - start < 10


def test_a_saved_tokeniser_is_read_again(bpe, tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text(bpe.json, "utf-8")
    again = tokenizer.read(path)
    assert again.fingerprint == bpe.fingerprint
    np.testing.assert_array_equal(again.encode(TEXTS[0]), bpe.encode(TEXTS[0]))


def test_a_changed_digit_of_a_saved_tokeniser_is_one_line(bpe, tmp_path):
    path = tmp_path / "tokenizer.json"
    for coder in (bpe, tokenizer.Tokenizer(tokenizer.BYTES)):
        path.write_text(coder.sealed, "utf-8")
        assert json.loads(coder.sealed).pop("seal") == coder.fingerprint
        assert tokenizer.read(path).json == coder.json
    piece, number = max(json.loads(bpe.json)["model"]["vocab"].items(), key=lambda item: item[1])
    other = f'"{piece}":{number - 1}'  # two pieces change places
    swapped = re.sub(rf'("[^"]*"):{number - 1}\b', rf"\1:{number}", bpe.sealed)
    swapped = swapped.replace(f'"{piece}":{number}', other)
    assert swapped != bpe.sealed
    path.write_text(swapped, "utf-8")
    with pytest.raises(ValueError, match=f"{path}: is not the file that was written") as error:
        tokenizer.read(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"\xff", b'{"model": 1}', b"null"])
def test_what_is_no_tokeniser_is_one_line(content, tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"{path}: is not a tokeniser") as error:
        tokenizer.read(path)
    assert "\n" not in str(error.value)
    path.unlink()
    with pytest.raises(ValueError, match=f"{path}: cannot be read: No such file or directory"):
        tokenizer.read(path)


def test_bytes_are_bytes():
    coder = tokenizer.Tokenizer(tokenizer.BYTES)
    assert coder.vocab_size == 257 and coder.end == 256
    np.testing.assert_array_equal(coder.encode("aé"), [97, 195, 169])  # é is C3 A9
    np.testing.assert_array_equal(coder.byte_V, [1] * 256 + [0])


def test_bpe_has_the_size_asked_for(bpe):
    assert bpe.vocab_size == 300 and bpe.end == 299
    assert bpe.byte_V.shape == (300,) and bpe.byte_V[-1] == 0 and bpe.byte_V[:-1].min() == 1
    # " lower" stands 6 times: it is one piece, found after at most 5 merges.
    assert len(bpe.encode(" lower")) == 1


def test_an_id_alone_that_is_no_text(bpe):
    assert tokenizer.Tokenizer(tokenizer.BYTES).decode([0xC3]) == "\ufffd"


def test_trained_twice_is_the_same(bpe):
    again = tokenizer.train(TEXTS[:3] * 3, 300)
    assert again.json == bpe.json and again.fingerprint == bpe.fingerprint
    assert tokenizer.Tokenizer(bpe.json).fingerprint == bpe.fingerprint
    other = tokenizer.train(TEXTS[:3] * 3, 299)
    assert other.fingerprint != bpe.fingerprint


def test_too_little_text_is_one_line():
    # "abab": 256 bytes, and the pair "ab" (twice), then "abab" stands once only: 257 and the end.
    with pytest.raises(ValueError, match="model.vocab_size=400: must be at most 258, all that"):
        tokenizer.train(["abab"], 400)
