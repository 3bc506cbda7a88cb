"""The real corpus, from the package index to batches; the same bytes on every machine."""

import json
import re
import subprocess
import sys
import time

import numpy as np
import pytest

from moe.analysis import ngram
from moe.data import loader, prepare, tokenizer
from moe.data.data import DESKS, Data
from moe.data.sources import desks, documents, packages
from moe.data.sources.pinned import PINNED

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def dataset(data_dir):
    return loader.load(Data(), 2048, data_dir)


@pytest.fixture(scope="module")
def corpus(dataset, data_dir):
    """Every document, and the keys of those held out."""
    read = PINNED["packages"].documents(packages.fetch(data_dir / "packages"))
    return read, documents.held_out(read)


def test_the_corpus_is_the_pinned_one(dataset, data_dir):
    metadata = json.loads((data_dir / prepare.CORPUS / "metadata.json").read_text())
    assert metadata["fingerprint"] == desks.FINGERPRINT
    assert dataset.desks == DESKS


def test_desks_are_of_comparable_size(dataset):
    train = dataset.tokens.train
    share = np.bincount(train.desk, train.tokens) / train.tokens.sum()
    assert 0.15 < share.min() and share.max() < 0.27  # a fifth each would be 0.2


def test_about_a_twentieth_of_each_desk_is_held_out(corpus):
    read, keys = corpus
    for desk in DESKS:
        size = {d.key: len(d.text.encode()) for d in read if d.desk == desk}
        assert 0.05 <= sum(n for key, n in size.items() if key in keys) / sum(size.values()) <= 0.06


def test_held_out_groups_are_whole_and_every_class_is_trained_on(corpus):
    read, keys = corpus
    assert not {d.group for d in read if d.key in keys} & {
        d.group for d in read if d.key not in keys
    }
    assert {d.label for d in read} == {d.label for d in read if d.key not in keys}
    assert not any(d.key in keys and d.trained for d in read)


@pytest.mark.parametrize(
    ("desk", "limit"),
    [
        ("drama", 0.001),
        ("scripture", 0.01),
        ("geography", 0.06),
        ("code", 0.03),
        ("languages", 0.03),
    ],
)
def test_little_of_the_held_out_text_stands_in_training(corpus, desk, limit):
    """Share of the runs of 13 words that training has word for word."""
    read, keys = corpus

    def runs(text):
        words = re.findall(r"\w+", text.lower())
        return [" ".join(words[i : i + 13]) for i in range(len(words) - 12)]

    trained = {run for d in read if d.desk == desk and d.key not in keys for run in runs(d.text)}
    wanted = [run for d in read if d.desk == desk and d.key in keys for run in runs(d.text)]
    assert sum(run in trained for run in wanted) <= limit * len(wanted)


def test_round_trip_of_documents_of_every_class(dataset, corpus):
    by_class = {}
    for document in corpus[0]:
        by_class.setdefault(document.label, document)
    assert len(by_class) == len(dataset.classes) > 130
    for document in by_class.values():
        assert dataset.decode(dataset.encode(document.text)) == document.text


def test_the_tokeniser_is_the_same_when_trained_again(dataset, corpus):
    read, keys = corpus
    texts = [d.text for d in read if d.key not in keys]  # in another order than the first time
    assert tokenizer.train(texts, 2048).fingerprint == dataset.tokens.tokenizer.fingerprint


def test_no_held_out_window_stands_in_training(dataset):
    train = dataset.tokens.train.id.tobytes()
    assert train[2 * 1000 :].find(dataset.tokens.train.id[1000:1128].tobytes()) == 0
    for desk in DESKS:
        for row in dataset.held_out(desk).id_BL.astype(np.uint16):
            assert row.tobytes() not in train, dataset.decode(row)


def test_baselines_are_in_order(dataset):
    got = ngram.baselines(dataset)
    for nats in (got, *got["by_desk"].values()):
        assert 1 < nats["fivegram_nats"] < nats["unigram_nats"] < np.log(2048)


def test_the_second_start_and_the_batches_are_fast(dataset, data_dir):
    start = time.perf_counter()
    again = loader.load(Data(), 2048, data_dir)
    assert time.perf_counter() - start < 2
    assert again.fingerprint == dataset.fingerprint
    stream = again.stream(0, 0, 16)
    next(stream)
    seconds = []
    for _ in range(200):
        time.sleep(0.002)  # the consumer's own work
        start = time.perf_counter()
        next(stream)
        seconds.append(time.perf_counter() - start)
    assert np.median(seconds) < 0.001  # ten times what it takes alone on the machine


def test_two_processes_prepare_the_same_folder(dataset, data_dir, tmp_path):
    (tmp_path / "packages").symlink_to(data_dir / "packages")
    code = (
        "from moe.data import loader; from moe.data.data import Data; "
        f"print(loader.load(Data('bytes'), 257, {str(tmp_path)!r}).fingerprint)"
    )
    command = [sys.executable, "-c", code]
    pair = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    lines = [process.communicate(timeout=300)[0] for process in pair]
    assert [process.returncode for process in pair] == [0, 0]
    assert lines[0] == lines[1] and len(lines[0]) == 65
