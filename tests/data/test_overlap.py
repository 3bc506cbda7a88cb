"""Held-out text that stands in training: equal texts, near-equal ones, and how they are told."""

import numpy as np
import pytest

from moe.data import loader, overlap
from moe.data.data import Data
from moe.data.sources import contract
from moe.data.sources.documents import Document
from tests.data.test_catalogue import TEXT, prepare
from tests.fakes.documents import some_documents

END = 256


def joined(*documents):
    """Tokens of documents, and how many each has, its end included."""
    rows = [np.append(np.array(ids, np.uint16), np.uint16(END)) for ids in documents]
    return np.concatenate(rows), np.array([len(row) for row in rows])


@pytest.mark.parametrize("run", [1, 2, 3, 5, 8, 13])
def test_runs_have_equal_hashes_where_they_are_equal(run):
    id_T = np.random.default_rng(0).integers(0, 3, 400).astype(np.uint16)
    hashes = overlap._hashes(id_T, run)
    assert len(hashes) == 400 - run + 1
    rows = [tuple(id_T[t : t + run]) for t in range(len(hashes))]
    assert len(set(hashes.tolist())) == len(set(rows))
    assert len(set(zip(hashes.tolist(), rows, strict=True))) == len(set(rows))


def test_near_equal_is_half_of_the_runs(monkeypatch):
    a, b, c = np.arange(0, 20), np.arange(50, 70), np.arange(100, 120)
    train, _ = joined(np.arange(200, 250), [*a[:12], 7, *b])
    # Runs of 4 tokens; a document of 20 has 17. Of a, those in its first 12 tokens: 9 of 17, over
    # half. Of a reversed none. Of the first 8 of a and then c: 5 of 25. All of b. c[:4] is as long
    # as a run, and has the one that is not there. Three tokens have no run, so they do not count.
    held_out, tokens_D = joined(a, a[::-1], [*a[:8], *c], b, c[:4], b[:3])
    assert overlap.near(train, held_out, tokens_D, 4) == (2, 5)
    for chunk in (1, 7, 30):  # a run is seen wherever the text is cut
        monkeypatch.setattr(overlap, "CHUNK", chunk)
        assert overlap.near(train, held_out, tokens_D, 4) == (2, 5)
    monkeypatch.setattr(overlap, "MOST", 60)  # 101 tokens: every second one, a, a and c, c[:4]
    assert overlap.near(train, held_out, tokens_D, 4) == (1, 3)
    assert overlap.near(train, *joined([1, 2]), 4) == (0, 0)


def test_copies_across_given_splits_are_left_out_and_told(tmp_path, monkeypatch, caplog):
    """A set of the catalogue brings its own split: 20 training texts, 3 of them held out too."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))

    def rows(split):
        for i in range(20) if split == "train" else range(17, 25):
            yield i, {"text": " ".join(f"{i}w{w}" for w in range(40))}

    prepare("lm1b", "1.1.0", TEXT, ("train", "test"), rows)
    dataset = loader.load(Data("bytes", 8, 4, source="tfds:lm1b"), 257, tmp_path / "cache")
    assert len(dataset.tokens.train.tokens) == 17 and len(dataset.tokens.held_out.tokens) == 8
    assert dataset.tokens.alike == overlap.Alike(left_out=3, near=0, seen=8, run=80)
    told = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert told == ["data.source=tfds:lm1b: 3 training documents are held out too, and left out"]


def test_a_training_text_that_is_all_held_out_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    same = lambda split: iter([(0, {"text": "the same"})])  # noqa: E731
    prepare("lm1b", "1.1.0", TEXT, ("train", "test"), same)
    with pytest.raises(contract.SourceError, match="all 1 training documents are held out too"):
        loader.load(Data("bytes", 8, 4, source="tfds:lm1b"), 257, tmp_path / "cache")


def test_near_copies_are_counted_and_told(tmp_path, caplog):
    documents = some_documents()
    first = loader.load(Data("bytes", 8, 4), 257, tmp_path, documents)
    assert first.tokens.alike.near == 0 and not caplog.records
    key = first.tokens.held_out.keys[0]
    text = next(d.text for d in documents if d.key == key)
    near = Document("south/near", "south", "south/1", "near", text + " more", trained=True)
    second = loader.load(Data("bytes", 8, 4), 257, tmp_path, [*documents, near])
    assert key in second.tokens.held_out.keys
    assert second.tokens.alike.near == 1
    told = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert len(told) == 1 and "1 of " in told[0] and "near-equal to training text" in told[0]
