"""One's own folder of text: domains, sources, the split, and every hostile file in one line."""

import os
import socket

import numpy as np
import pytest

from moe.data import loader
from moe.data.data import Data
from moe.data.sources import contents, contract, folder

L = 8


def load(path, data_dir, tokenizer="bytes", vocab_size=257, **fields):
    data = Data(tokenizer, L, 4, source=f"folder:{path}", **fields)
    return loader.load(data, vocab_size, data_dir)


def write(path, files):
    for name, content in files.items():
        place = path / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def book(name, lines):
    return "".join(f"{name} line {i} of the book\n" for i in range(lines))


@pytest.fixture
def texts(tmp_path):
    return some_texts(tmp_path)


def some_texts(tmp_path):
    """Domain books: two files of a source each. Domain web: a folder and many small files."""
    files = {"books/one.txt": book("one", 200), "books/two.txt": book("two", 150)}
    files |= {f"web/news/{i}.html": book(f"n{i}", 5) for i in range(60)}
    files |= {f"web/{i}.txt": book(f"w{i}", 2) for i in range(60)}
    return write(tmp_path / "my texts", files | {".hidden": b"\xff", "web/blank.txt": " \n"})


def documents(path):
    return folder.documents(path, folder.scan(path))


def test_folders_are_domains_and_sources(texts):
    found = documents(texts)
    assert {d.desk for d in found} == {"books", "web"}
    labels = {"books/one.txt", "books/two.txt", "web/news", "web/files"}
    assert {d.label for d in found} == labels
    for name in ("one", "two"):  # pieces joined are the file, cut at line ends
        pieces = [d for d in found if d.label == f"books/{name}.txt"]
        assert "".join(d.text for d in pieces) == (texts / f"books/{name}.txt").read_text()
        assert len(pieces) > 10 and all(d.text.endswith("\n") for d in pieces)
        assert len({d.group for d in pieces}) == len(pieces)
        assert [d.key for d in pieces] == sorted(d.key for d in pieces)
    small = [d for d in found if d.desk == "web"]
    assert len(small) == 120 and all(d.size == len(d.text.encode()) for d in small)


def test_batches_come_from_it_and_the_held_out_text_is_apart(texts, tmp_path):
    dataset = load(texts, tmp_path / "cache")
    assert dataset.desks == ("books", "web")
    assert dataset.batch(0, 0, 4).id_BL.shape == (4, L)
    train, held_out = (set(split.keys) for split in (dataset.tokens.train, dataset.tokens.held_out))
    assert not train & held_out and train | held_out == {d.key for d in documents(texts)}
    trained = bytes(dataset.tokens.train.id[dataset.tokens.train.id < 256].astype(np.uint8))
    for d in documents(texts):
        assert (d.text.encode() in trained) == (d.key in train), d.key
    for desk in dataset.desks:
        size = {d.key: d.size for d in documents(texts) if d.desk == desk}
        share = sum(n for key, n in size.items() if key in held_out) / sum(size.values())
        assert 0.04 < share <= 0.06


def test_a_changed_file_is_another_corpus_and_a_copy_is_the_same(texts, tmp_path):
    first = load(texts, tmp_path / "cache")
    copy = write(
        tmp_path / "copy",
        {str(p.relative_to(texts)): p.read_bytes() for p in texts.rglob("*") if p.is_file()},
    )
    assert load(copy, tmp_path / "other").fingerprint == first.fingerprint
    (copy / "books/one.txt").write_text(book("one", 199))
    assert load(copy, tmp_path / "other").fingerprint != first.fingerprint


def test_files_without_a_domain_are_a_domain(tmp_path):
    path = write(tmp_path / "poems", {"a.txt": book("a", 100), "b.txt": book("b", 100)})
    assert load(path, tmp_path / "cache").desks == ("poems",)


def test_a_link_is_followed(texts, tmp_path):
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked/books").symlink_to(texts / "books")
    assert {d.label for d in documents(tmp_path / "linked")} == {"books/one.txt", "books/two.txt"}


def test_a_tokeniser_is_trained_on_it(texts, tmp_path):
    dataset = load(texts, tmp_path / "cache", "bpe", 270)
    assert dataset.vocab_size == 270
    again = load(texts, tmp_path / "cache", "bpe", 270, max_documents=9)
    assert len(again.tokens.train.tokens) == 9


HOSTILE = {  # name: (files, the line's beginning after {path} is filled in)
    "no folder": (None, "data.source=folder:{path}: does not exist"),
    "nothing": ({}, "data.source=folder:{path}: holds no text; put text files into {path}/DOMAIN"),
    "an empty file": ({"a/x.txt": b""}, "data.source=folder:{path}: holds no text; "),
    "white space": ({"a/x.txt": b" \n\t \r\n"}, "data.source=folder:{path}: holds no text; "),
    "hidden files": ({".git/x": b"text"}, "data.source=folder:{path}: holds no text; "),
    "one byte": ({"a/x.txt": b"a"}, "corpus: too little text, 1 bytes: no document is left for "),
    "one line": ({"a/x.txt": b"ab\n"}, "corpus: too little text, 3 bytes: no document is left "),
    "invalid UTF-8": ({"a/x.txt": b"abc\xff"}, "{path}/a/x.txt: byte 3 is no UTF-8; convert it"),
    "half a character": ({"a/x.txt": b"ab\xe2\x82"}, "{path}/a/x.txt: byte 2 is no UTF-8; "),
    "UTF-16": ({"a/x.txt": "text".encode("utf-16")}, "{path}/a/x.txt: byte 3 is 0: must be text"),
    "a surrogate": ({"a/x.txt": b"\xed\xa0\x80"}, "{path}/a/x.txt: byte 0 is no UTF-8"),
    "binary": ({"a/x.bin": b"\x7fELF\x02\x00"}, "{path}/a/x.bin: byte 5 is 0: must be text, not "),
    "a good file and a bad": (
        {"a/x.txt": b"text\n" * 99, "b/y": b"\0"},
        "{path}/b/y: byte 0 is 0: must be text, not binary; remove it",
    ),
    "a name in two lines": ({"a\nb/x.txt": b"text"}, "'{path}/a\\nb': must have a printable name"),
    "a name with spaces": ({"a /x.txt": b"text"}, "'{path}/a ': must have a printable name, no "),
    "a name that is no UTF-8": (
        {os.fsdecode(b"a\xff/x.txt"): b"text"},
        "'{path}/a\\udcff': must have a printable name",
    ),
    "a domain too small": (
        {"a/x.txt": book("a", 99), "b/y.txt": b"a\n"},
        "data.sequence_length=8: longer than the held-out text of desk b, 0 tokens",
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_folders_are_one_line(case, tmp_path):
    files, line = HOSTILE[case]
    path = tmp_path / "texts"
    if files is not None:
        path.mkdir()
        write(path, files)
    with pytest.raises(ValueError) as error:
        load(path, tmp_path / "cache")
    assert str(error.value).startswith(line.format(path=path)), error.value
    assert "\n" not in str(error.value)


def one_line(path, tmp_path):
    with pytest.raises(contract.SourceError) as error:
        load(path, tmp_path / "cache")
    assert "\n" not in str(error.value)
    return str(error.value).replace(str(path), "PATH")


def test_links_in_a_circle_are_one_line(texts, tmp_path):
    (texts / "web/self").symlink_to("self")
    assert one_line(texts, tmp_path) == (
        "PATH/web/self: cannot be read: Too many levels of symbolic links"
    )
    (texts / "web/self").unlink()
    (texts / "web/up").symlink_to(texts)
    assert (
        one_line(texts, tmp_path) == "PATH/web/up: is a link to a folder that holds it; remove it"
    )
    (texts / "web/up").unlink()
    (texts / "web/gone").symlink_to("nowhere")
    assert one_line(texts, tmp_path) == "PATH/web/gone: cannot be read: No such file or directory"


def test_no_regular_files_are_one_line(texts, tmp_path, monkeypatch):
    os.mkfifo(texts / "web/pipe")  # opening one would wait for ever
    assert one_line(texts, tmp_path) == "PATH/web/pipe: is neither a file nor a folder; remove it"
    (texts / "web/pipe").unlink()
    monkeypatch.chdir(texts)  # the name of a socket must be short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("web/socket")
        assert one_line(texts, tmp_path).startswith("PATH/web/socket: is neither a file nor a ")
    path = texts / "books/one.txt"
    assert one_line(path, tmp_path) == "data.source=folder:PATH: is not a folder"


def test_unreadable_files_are_one_line(texts, tmp_path, monkeypatch):
    """Refused here by name, since tests may run as root, whom no permission stops."""
    real = open

    def refuse(path, *rest):
        if str(path).endswith("two.txt"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *rest)

    monkeypatch.setattr(contents, "open", refuse, raising=False)
    assert one_line(texts, tmp_path) == "PATH/books/two.txt: cannot be read: Permission denied"
    monkeypatch.setattr(folder.os, "listdir", lambda path: refuse(f"{path}/two.txt"))
    assert one_line(texts, tmp_path) == "PATH/two.txt: cannot be read: Permission denied"


def test_a_file_that_is_too_long_is_one_line(texts, tmp_path, monkeypatch):
    monkeypatch.setattr(folder, "FILE", 4000)
    assert one_line(texts, tmp_path).startswith(
        "PATH/books/one.txt: has 4890 bytes: must be at most 4000"
    )


@pytest.mark.parametrize("run", ["a", "é b "])
def test_a_long_line_is_cut_and_nothing_is_lost(run, tmp_path):
    size = 2**20
    path = write(tmp_path / "texts", {"a/x.txt": run * (size // len(run.encode()))})
    found = documents(path)
    assert "".join(d.text for d in found) == (path / "a/x.txt").read_text()
    assert max(d.size for d in found) <= size // folder.PART < folder.PIECE
    dataset = load(path, tmp_path / "cache", "bpe", 258)
    assert dataset.tokens.train.bytes.sum() > 0.9 * size


@pytest.mark.slow
@pytest.mark.parametrize("word", ["low lower lowest ", "ab"])
def test_a_line_of_30_megabytes(word, tmp_path):
    text = (word * (30_000_000 // len(word) + 1))[:30_000_000]
    path = write(tmp_path / "texts", {"a/x.txt": text})
    dataset = load(path, tmp_path / "cache", "bpe", 258)
    train, held_out = dataset.tokens.train, dataset.tokens.held_out
    assert train.bytes.sum() + held_out.bytes.sum() == 30_000_000
    assert dataset.batch(0, 10_000, 4).id_BL.shape == (4, L)
