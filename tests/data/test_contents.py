"""Text is known by its content: alike names, sizes and times tell nothing, copies are one."""

import dataclasses
import os
import shutil

import numpy as np
import pytest

from moe.data import loader
from moe.data.data import Data
from moe.data.sources import catalogue, contents, contract, folder
from tests.data.test_catalogue import TEXT, lines, prepare
from tests.data.test_folder import book, documents, load, some_texts, write


@pytest.fixture
def texts(tmp_path):
    return some_texts(tmp_path)


def as_before(path, found):
    """Sets the times of a file back, as `cp -p` and rsync do."""
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


def text_of(dataset):
    return {dataset.decode(split.id) for split in (dataset.tokens.train, dataset.tokens.held_out)}


def test_folders_alike_in_names_sizes_and_times_keep_their_own_text(texts, tmp_path):
    other = tmp_path / "other"
    for path in sorted(p for p in texts.rglob("*.*") if p.is_file()):
        raw = path.read_bytes().replace(b"line", b"LINE")  # as long
        as_before(
            write(other, {str(path.relative_to(texts)): raw}) / path.relative_to(texts), path.stat()
        )
    first, second = load(texts, tmp_path / "cache"), load(other, tmp_path / "cache")
    assert any("line" in text for text in text_of(first))
    assert not any("line" in text for text in text_of(second))
    assert first.fingerprint != second.fingerprint


def test_an_edit_in_place_with_the_time_kept_is_seen(texts, tmp_path, monkeypatch):
    monkeypatch.setattr(contents, "SETTLED_S", 0.0)  # so that hashes are remembered at once
    path = texts / "books/one.txt"
    first, found = load(texts, tmp_path / "cache"), path.stat()
    assert load(texts, tmp_path / "cache").fingerprint == first.fingerprint
    with open(path, "r+b") as file:  # the same inode
        file.write(b"ONE")
    as_before(path, found)
    second = load(texts, tmp_path / "cache")
    assert not any(text.startswith("ONE line 0") for text in text_of(first))
    assert any("ONE line 0" in text for text in text_of(second))


def test_hashes_are_remembered_and_a_damaged_memory_is_not_used(texts, tmp_path, monkeypatch):
    memory = tmp_path / "memory.json"
    first = folder.fingerprint(folder.scan(texts, memory))
    assert not memory.exists()  # all are younger than SETTLED_S, so they may change again
    monkeypatch.setattr(contents, "SETTLED_S", 0.0)
    assert folder.fingerprint(folder.scan(texts, memory)) == first
    with monkeypatch.context() as patch:
        patch.setattr(contents, "_digest", None)  # reading again would fail
        assert folder.fingerprint(folder.scan(texts, memory)) == first
    digest = folder.scan(texts, memory)[0].digest
    wrong = memory.read_text().replace(
        digest, digest[:-1] + "0123456789abcdef1"[int(digest[-1], 16) + 1]
    )
    memory.write_text(wrong)
    assert folder.fingerprint(folder.scan(texts, memory)) == first


def test_a_file_that_changes_while_it_is_read_is_one_line(texts, tmp_path, monkeypatch):
    found = documents(texts)
    (texts / "books/one.txt").write_text(book("eno", 200))
    line = "books/one.txt: was changed while it was read; start again$"
    with pytest.raises(contract.SourceError, match=line):
        [d.text for d in found]
    prepare = folder.documents

    def late(*args):
        pieces = prepare(*args)
        (texts / "books/one.txt").write_text(book("one", 200))
        return pieces

    monkeypatch.setattr(folder, "documents", late)
    with pytest.raises(contract.SourceError, match=line):
        load(texts, tmp_path / "cache")


def test_copies_of_a_file_stand_on_one_side_of_the_split(tmp_path):
    """Also of one that is cut, in a domain where it would be cut in other places."""
    files = {f"a/{i}.txt": book(f"a{i}", 3) for i in range(100)}
    files |= {f"a/copy{i}.txt": book(f"a{i}", 3) for i in range(100)}
    files |= {"b/long.txt": book("long", 400), "c/again.txt": book("long", 400)}
    files |= {f"c/{i}.txt": book(f"c{i}", 9) for i in range(200)}
    dataset = load(write(tmp_path / "texts", files), tmp_path / "cache")
    tokens = dataset.tokens
    sides = [set(texts_of(split, dataset)) for split in (tokens.train, tokens.held_out)]
    assert not sides[0] & sides[1] and all(sides)
    assert tokens.alike.left_out == 0
    assert all(split.desk.tolist().count(0) for split in (tokens.train, tokens.held_out))


def texts_of(split, dataset):
    ends = np.cumsum(split.tokens)
    rows = zip(ends, split.tokens, strict=True)
    return [dataset.decode(split.id[end - n : end]) for end, n in rows]


def test_sets_alike_in_names_sizes_and_times_keep_their_own_text(tmp_path, monkeypatch):
    found = []
    for word in ("line", "LINE"):
        place = tmp_path / word
        monkeypatch.setenv("TFDS_DATA_DIR", str(place))

        def rows(split, word=word):
            return ((i, {"text": f"{split} {word} {i} of a text"}) for i in range(20))

        prepare("lm1b", "1.1.0", TEXT, ("train", "test"), rows)
        for path in place.rglob("*.*"):
            os.utime(path, ns=(0, 0))
        found.append(loader.load(Data("bytes", 8, 4, source="tfds:lm1b"), 257, tmp_path / "cache"))
    for dataset, word in zip(found, ("line", "LINE"), strict=True):
        assert all(f" {word} " in text for text in texts_of(dataset.tokens.train, dataset))
    assert found[0].fingerprint != found[1].fingerprint


@pytest.mark.parametrize("whole", [2**36, 0])
def test_the_key_of_a_set_is_its_content(whole, tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    prepare("lm1b", "1.1.0", TEXT, ("train", "test"), lines)
    monkeypatch.setattr(catalogue, "WHOLE", whole)
    sets = [catalogue.find("lm1b")]
    first = catalogue.key(sets, tmp_path / "a")
    assert first == catalogue.key(sets, tmp_path / "b")
    copy = dataclasses.replace(sets[0], folder=tmp_path / "copy")
    shutil.copytree(sets[0].folder, copy.folder)
    assert first == catalogue.key([copy], tmp_path / "a")
    record = next(copy.folder.glob("*train*"))
    raw = record.read_bytes()
    record.write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
    assert first != catalogue.key([copy], tmp_path / "a")
