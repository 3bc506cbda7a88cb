"""Batches: a function of (seed, step), labelled by document, held-out text never trained on."""

import itertools
import subprocess
import sys
import threading

import numpy as np
import pytest

from moe.data import loader
from moe.data.data import Data
from moe.data.sources.documents import stable_hash
from tests.fakes.documents import DATA, L, some_documents


def equal(one, other):
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_batch_is_windows_with_the_next_token_as_target(dataset):
    batch = dataset.batch(seed=0, step=0, batch_size=4)
    for array in batch:
        assert array.shape == (4, L) and array.dtype == np.int32
    np.testing.assert_array_equal(batch.id_BL[:, 1:], batch.target_BL[:, :-1])
    assert batch._fields == ("id_BL", "target_BL", "desk_BL", "class_BL", "label_BL")


def test_the_stream_equals_the_batches(dataset):
    stream = dataset.stream(seed=3, start_step=2, batch_size=4)
    for step, batch in zip(range(2, 30), stream, strict=False):
        assert equal(batch, dataset.batch(3, step, 4))
    del stream


def test_a_process_reads_its_rows_of_the_same_batches(dataset):
    rows = np.array([0, 2, 5])
    stream = dataset.stream(seed=3, start_step=2, batch_size=6, rows=rows)
    for step, part in zip(range(2, 12), stream, strict=False):
        assert equal(part, [array[rows] for array in dataset.batch(3, step, 6)])
    del stream


def test_a_jump_equals_walking(dataset):
    fresh = loader.Dataset(dataset.tokens, DATA)
    jumped = fresh.batch(1, 10_000, 2)
    walked = next(itertools.islice(dataset.stream(1, 0, 2), 10_000, None))
    assert equal(jumped, walked)


def rows_of(index, count, size):
    """Those of one of several processes, as a mesh splits them."""
    return np.arange(size)[index * size // count : (index + 1) * size // count]


@pytest.mark.parametrize("count", [2, 3, 4, 12])
def test_the_rows_of_all_processes_are_the_batch(dataset, count):
    whole = dataset.batch(7, 11, 12)
    parts = [dataset.batch(7, 11, 12, rows_of(index, count, 12)) for index in range(count)]
    assert all(part.id_BL.shape == (12 // count, L) for part in parts)
    joined = [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]
    assert equal(joined, whole)


def test_a_run_goes_on_with_another_number_of_processes(dataset):
    """Steps 0 and 1 with four processes, 2 and 3 with two, 4 with one: the same global batches."""
    for step, count in [(0, 4), (1, 4), (2, 2), (3, 2), (4, 1)]:
        streams = [dataset.stream(1, step, 4, rows_of(index, count, 4)) for index in range(count)]
        joined = [np.concatenate(a) for a in zip(*(next(s) for s in streams), strict=True)]
        assert equal(joined, dataset.batch(1, step, 4))


@pytest.mark.parametrize("size", [1, 2, 3, 500])
def test_any_batch_size_can_be_streamed(dataset, size):
    assert equal(next(dataset.stream(1, 2, size)), dataset.batch(1, 2, size))


def test_a_process_reads_its_own_rows_only(dataset, monkeypatch):
    read, cut, here = [], loader._cut, threading.get_ident()

    def watched(split, w_B, *rest):
        if threading.get_ident() == here:  # streams of other tests may still read ahead
            read.append(w_B)
        return cut(split, w_B, *rest)

    monkeypatch.setattr(loader, "_cut", watched)
    fresh = loader.Dataset(dataset.tokens, DATA)
    read.clear()
    fresh.batch(0, 0, 8, rows_of(1, 4, 8))
    assert [len(w_B) for w_B in read] == [2]


def test_the_tokens_stay_on_the_disk(dataset):
    ids = dataset.tokens.train.id
    assert isinstance(ids, np.memmap) and not ids.flags.writeable


def test_a_long_text_is_sampled_in_stretches():
    ids = np.arange(1000, dtype=np.uint16)
    assert loader.spread(ids, 1000, 4) is ids
    few = loader.spread(ids, 40, 4)  # 4 stretches of 10, the first and the last at the ends
    assert few.tolist() == [s + i for s in (0, 330, 660, 990) for i in range(10)]


def test_an_epoch_shows_each_window_once_and_the_next_in_another_order(dataset):
    n = dataset.windows
    assert n == (len(dataset.tokens.train.id) - 1) // L  # the last target needs one token more
    first = np.array([dataset.batch(0, step, 1).id_BL[0] for step in range(n)])
    second = np.array([dataset.batch(0, n + step, 1).id_BL[0] for step in range(n)])
    other = np.array([dataset.batch(1, step, 1).id_BL[0] for step in range(n)])
    whole = dataset.tokens.train.id[: n * L].reshape(n, L)
    for seen in (first, second, other):
        np.testing.assert_array_equal(
            np.sort(seen.view("V32"), 0), np.sort(whole.astype(np.int32).view("V32"), 0)
        )
    assert not np.array_equal(first, second) and not np.array_equal(first, other)


def test_labels_are_those_of_the_input_tokens_document(dataset):
    documents = {d.key: d for d in some_documents()}
    train = dataset.tokens.train
    desk_T, class_T = [], []
    for key, count in zip(train.keys, train.tokens, strict=True):
        assert count == len(documents[key].text) + 1  # ASCII bytes and the end
        desk_T += [documents[key].desk] * count
        class_T += [documents[key].label] * count
    place = {bytes(train.id[w * L : (w + 1) * L]): w * L for w in range(dataset.windows)}
    for step in range(20):
        batch = dataset.batch(5, step, 3)
        for row in range(3):
            start = place[batch.id_BL[row].astype(np.uint16).tobytes()]
            desks = [dataset.desks[i] for i in batch.desk_BL[row]]
            classes = [dataset.classes[i] for i in batch.class_BL[row]]
            assert desks == desk_T[start : start + L]
            assert classes == class_T[start : start + L]


def test_tokens_are_the_documents(dataset):
    documents = {d.key: d.text for d in some_documents()}
    assert dataset.desks == ("north", "south")
    assert dataset.classes == ("north/a", "south/0", "south/1")
    split = dataset.tokens.train
    texts = [documents[key].encode() for key in split.keys]
    assert list(split.keys) == sorted(split.keys, key=stable_hash)  # shuffled, always the same
    expected = [token for text in texts for token in [*text, 256]]
    np.testing.assert_array_equal(split.id, expected)
    np.testing.assert_array_equal(dataset.count_V, np.bincount(expected, minlength=257))
    np.testing.assert_array_equal(split.bytes, [len(text) for text in texts])
    assert dataset.byte_V[256] == 0 and dataset.byte_V[:256].sum() == 256
    assert dataset.decode(dataset.encode("Ünï")) == "Ünï"


def test_no_document_is_in_both_splits(dataset):
    train, held_out = dataset.tokens.train, dataset.tokens.held_out
    assert not set(train.keys) & set(held_out.keys)
    assert set(train.keys) | set(held_out.keys) == {d.key for d in some_documents()}
    # Each word names its document, so a held-out word in a training text would be a leak.
    trained = bytes(train.id[train.id < 256].astype(np.uint8)).decode()
    for desk in dataset.desks:
        batch = dataset.held_out(desk)
        for row in batch.id_BL:
            words = dataset.decode(row).split(" ")[1:-1]  # whole words only
            assert not any(word in trained for word in words if "w" in word and len(word) > 4)


def test_held_out_windows_are_fixed_and_of_one_desk(dataset):
    assert dataset.held_out_rows == {"north": 5, "south": 5}
    for index, desk in enumerate(dataset.desks):
        batch = dataset.held_out(desk)
        assert batch.id_BL.shape == (5, L) and (batch.desk_BL == index).all()
        assert equal(batch, loader.Dataset(dataset.tokens, DATA).held_out(desk))
        np.testing.assert_array_equal(batch.id_BL[:, 1:], batch.target_BL[:, :-1])


def test_tokens_of_held_out_windows_know_their_document(dataset):
    split = dataset.tokens.held_out
    texts = np.split(split.id, split.ends[:-1])  # of the documents of both desks, with their ends
    for y, desk in enumerate(dataset.desks):
        id_BL, number_BL = dataset.held_out(desk).id_BL, dataset.document(desk)
        assert number_BL.shape == id_BL.shape and set(split.desk[number_BL.ravel()]) == {y}
        for ids, numbers in zip(id_BL, number_BL, strict=True):
            for number in np.unique(numbers):
                run = ids[numbers == number].astype(np.uint16).tobytes()
                assert run in np.ascontiguousarray(texts[number]).tobytes()


def test_any_text_gets_the_label_that_routers_read(dataset):
    batch = dataset.held_out("south")
    found = dataset.label(batch.id_BL, batch.desk_BL, batch.class_BL)
    np.testing.assert_array_equal(found, batch.label_BL)


def test_held_out_windows_are_spread_over_all_there_is(dataset):
    split = dataset.tokens.held_out
    of_north = split.id[np.repeat(split.desk == 0, split.tokens)]
    total = (len(of_north) - 1) // L
    rows = dataset.held_out("north").id_BL
    for w in range(5):  # windows 0, total / 5, 2 total / 5, ...
        start = (w * total // 5) * L
        np.testing.assert_array_equal(rows[w], of_north[start : start + L])
    many = Data(tokenizer="bytes", sequence_length=L, held_out_windows=10**6)
    assert loader.Dataset(dataset.tokens, many).held_out_rows["north"] == total


@pytest.mark.parametrize(
    ("data", "vocab_size", "line"),
    [
        (Data("word"), 2048, "data.tokenizer=word: no such value (valid: bpe, bytes)"),
        (Data(sequence_length=0), 2048, "data.sequence_length=0: must be >= 1"),
        (Data(held_out_windows=-1), 2048, "data.held_out_windows=-1: must be in [1, 2^20]"),
        (Data(), 257, "model.vocab_size=257: must be in [258, 65536] with data.tokenizer=bpe"),
        (Data(), 65537, "model.vocab_size=65537: must be in [258, 65536] with data.tokenizer=bpe"),
        (
            Data("bytes"),
            256,
            "model.vocab_size=256: must be 257, each byte and the end, with data.tokenizer=bytes",
        ),
        (
            Data("bytes", 10**6),
            257,
            "data.sequence_length=1000000: longer than the training text, ",
        ),
        (Data("bytes", 2000), 257, "data.sequence_length=2000: longer than the held-out text of "),
        (Data("bpe", L), 9000, "model.vocab_size=9000: must be at most "),
    ],
)
def test_mistakes_are_one_line(data_dir, data, vocab_size, line):
    with pytest.raises(ValueError) as error:
        loader.load(data, vocab_size, data_dir, some_documents())
    assert str(error.value).startswith(line) and "\n" not in str(error.value)


def test_wrong_arguments_are_one_line(dataset):
    with pytest.raises(ValueError, match="desk=west: unknown; valid names: north, south"):
        dataset.held_out("west")
    with pytest.raises(ValueError, match="step=-1: must be >= 0"):
        dataset.batch(0, -1, 2)
    with pytest.raises(ValueError, match="step=-1: must be >= 0"):
        dataset.stream(0, -1, 2)
    with pytest.raises(ValueError, match=r"seed=-1: must be in \[0, 2\^31\)"):
        dataset.batch(-1, 0, 2)
    with pytest.raises(ValueError, match="batch_size=0: must be >= 1"):
        dataset.batch(0, 0, 0)


def test_importing_the_settings_loads_no_library():
    code = (
        "import sys, moe.data; "
        "print([m for m in ('numpy', 'jax', 'grain', 'absl') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
