"""Count baselines: Kneser-Ney against a dictionary, by hand, and as a distribution."""

import math
from collections import Counter

import numpy as np
import pytest

from moe import files
from moe.analysis import ngram
from moe.data import loader
from moe.data.data import Data
from moe.data.sources.documents import Document


class Slow:
    """Interpolated Kneser-Ney by dictionaries, straight from its definition."""

    def __init__(self, text, vocab_size, order):
        self.vocab_size, self.order = vocab_size, order
        self.raw, self.lower = {}, {}
        for n in range(1, order + 2):
            grams = [tuple(text[i : i + n]) for i in range(len(text) - n + 1)]
            self.raw[n] = Counter(grams)
            self.lower[n - 1] = Counter(gram[1:] for gram in set(grams))

    def probability(self, context, word, highest=True):
        context = tuple(context)[-(self.order - 1) :] if self.order > 1 else ()
        n = len(context) + 1
        below = self.probability(context[1:], word, False) if context else 1 / self.vocab_size
        counts = self.raw[n] if highest else self.lower[n]
        values = list(counts.values())
        n1, n2 = values.count(1), values.count(2)
        discount = n1 / (n1 + 2 * n2) if n1 else 0.5
        following = [c for gram, c in counts.items() if gram[:-1] == context]
        if not following:
            return below
        kept = max(counts.get((*context, word), 0) - discount, 0)
        return (kept + discount * len(following) * below) / sum(following)


@pytest.fixture(scope="module")
def text():
    """Repeats, so that long contexts are seen; 8 stands first and never again, 9 nowhere."""
    rng = np.random.default_rng(0)
    phrases = rng.integers(0, 7, (6, 9))
    return np.concatenate([[8], *(phrases[i] for i in rng.integers(0, 6, 33)), [7, 0, 7]])


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_equals_the_dictionary(text, order):
    fast, slow = ngram.KneserNey(text, 10, order), Slow(list(text), 10, order)
    rng = np.random.default_rng(1)
    row = np.concatenate([text[40:52], text[:4], rng.integers(0, 10, 10)])
    rows = np.stack([row, np.roll(row, 5)])
    got = fast.probability(rows[:, :-1], rows[:, 1:])
    for b, row in enumerate(rows.tolist()):
        for t in range(len(row) - 1):
            expected = slow.probability(row[: t + 1], row[t + 1])
            assert got[b, t] == pytest.approx(expected, rel=1e-12), (b, t)


def test_sums_to_one_over_the_vocabulary(text):
    model = ngram.KneserNey(text, 10)
    rng = np.random.default_rng(2)
    contexts = np.stack([text[30:36], text[70:76], rng.integers(0, 10, 6), np.full(6, 9)])
    total = np.zeros(contexts.shape)
    for word in range(10):
        p = model.probability(contexts, np.full(contexts.shape, word))
        assert (p > 0).all()
        total += p
    np.testing.assert_allclose(total, 1, rtol=1e-12)


def test_bigram_by_hand():
    # Text 0 0 1 0 2, V = 4. Bigrams 00 01 10 02, once each: n1 = 4, n2 = 0, d = 1.
    # Different tokens before 0: {0, 1} = 2; before 1: {0} = 1; before 2: {0} = 1; sum 4,
    # n1 = 2, n2 = 1, d = 2 / (2 + 2) = 1/2, 3 types.
    # P_1(0) = (2 - 1/2) / 4 + (1/2)(3)/4 * 1/4 = 0.375 + 0.09375 = 0.46875
    # P_1(3) = 0.09375.  After 0 three bigrams, each 1 - 1 = 0 left: P(w | 0) = P_1(w).
    model = ngram.KneserNey(np.array([0, 0, 1, 0, 2]), 4, 2)
    p = model.probability(np.array([[0, 0]]), np.array([[0, 3]]))
    np.testing.assert_allclose(p, [[0.46875, 0.09375]])


def test_trigram_context_ends_at_the_window():
    # Text 0 1 2 0 1 2 0 1 2. The first target of a row has one token of context: raw bigrams.
    # Bigrams 01 x3, 12 x3, 20 x2: no 1s, so d = 1/2: P(2 | 1) = (3 - 1/2) / 3 + (1/2) / 3 P_1(2).
    # One different token before each of 0, 1, 2: n1 = 3, n2 = 0, d = 1: P_1(2) = 0 + 3/3 * 1/3.
    # 5/6 + 1/18 = 16/18
    model = ngram.KneserNey(np.array([0, 1, 2] * 3), 3, 3)
    np.testing.assert_allclose(model.probability(np.array([[1]]), np.array([[2]])), [[16 / 18]])


def test_unigram_by_hand():
    # Counts 3, 0, 1 plus one each: 4, 1, 2 of 7.
    np.testing.assert_allclose(ngram.unigram(np.array([3, 0, 1])), [4 / 7, 1 / 7, 2 / 7])


def test_too_large_a_vocabulary_is_one_line():
    with pytest.raises(ValueError, match="model.vocab_size=9223372036854775807: 2 tokens of text"):
        ngram.KneserNey(np.array([0, 1]), 2**63 - 1)


def test_a_large_vocabulary_needs_no_packing_of_five_tokens(text):
    # 65536**5 is far over 2**63; ranks times the vocabulary are not.
    large = ngram.KneserNey(text * 8191, 65536)
    small = Slow(list(text * 8191), 65536, 5)
    row = text[40:50] * 8191
    got = large.probability(row[None, :-1], row[None, 1:])[0]
    for t in range(9):
        assert got[t] == pytest.approx(small.probability(row[: t + 1].tolist(), int(row[t + 1])))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    documents = [
        Document(
            f"{desk}/{i}", desk, f"{desk}/all", str(i), f"{desk} number {i} says {i * i}. " * 6
        )
        for desk in ("up", "down")
        for i in range(40)
    ]
    data = Data("bytes", 16, 4)
    return loader.load(data, 257, tmp_path_factory.mktemp("data"), documents)


def test_baselines_are_means_over_the_held_out_targets(dataset):
    got = ngram.baselines(dataset)
    count = dataset.count_V + 1
    slow = Slow(dataset.tokens.train.id.tolist(), 257, 5)
    one, five = [], []
    batch = dataset.held_out("down")
    for row, target in zip(batch.id_BL.tolist(), batch.target_BL.tolist(), strict=True):
        for t in range(16):
            one.append(-math.log(count[target[t]] / count.sum()))
            five.append(-math.log(slow.probability(row[: t + 1], target[t])))
    down = got["by_desk"]["down"]
    assert down["unigram_nats"] == pytest.approx(sum(one) / len(one))
    assert down["fivegram_nats"] == pytest.approx(sum(five) / len(five))
    # Both desks have 4 windows, so the whole is the middle of the two.
    for name in ("unigram_nats", "fivegram_nats"):
        by_desk = [got["by_desk"][desk][name] for desk in ("up", "down")]
        assert got[name] == pytest.approx(sum(by_desk) / 2)
    assert got["fivegram_nats"] < got["unigram_nats"] < math.log(257)


def test_baselines_are_cached_until_the_data_change(dataset, monkeypatch):
    first = ngram.baselines(dataset)
    path = next(dataset.tokens.folder.glob("baselines-*.json"))
    with monkeypatch.context() as patch:
        patch.setattr(ngram, "KneserNey", None)  # counting again would fail
        assert ngram.baselines(dataset) == first
    path.write_text("{")
    assert ngram.baselines(dataset) == first
    number = f"{first['fivegram_nats']}"
    digit = str((int(number[4]) + 1) % 10)
    raw = path.read_text().replace(number, number[:4] + digit + number[5:], 1)
    assert raw != path.read_text()
    path.write_text(raw)
    assert ngram.baselines(dataset) == first
    other = {"fingerprint": "of other data", "nats": {"unigram_nats": 0.0}}
    path.write_text(files.sealed(other))
    assert ngram.baselines(dataset) == first
