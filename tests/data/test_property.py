"""Any folder of any bytes: batches or one line; any split of the rows: the same batch."""

import functools
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from moe.data import loader, tokenizer
from moe.data.data import Data
from moe.data.sources import contract, folder


def lines(count):
    return b"".join(b"line %d of a text\n" % i for i in range(count))


NAMES = st.sampled_from(["a/x.txt", "a/y", "b/s/1", "b/s/2", "z.txt", "c/d/e/f.md"])
CONTENT = st.one_of(
    st.binary(max_size=60),
    st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.integers(1, 400).map(lines),
)
QUICK = settings(max_examples=60, deadline=None, derandomize=True)


def write(path, files):
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)


@QUICK
@given(st.dictionaries(NAMES, CONTENT, max_size=5))
@example({"a/x.txt": b""})
@example({"a/x.txt": b"\xef\xbb\xbf"})
@example({"a/x.txt": b"\r\n" * 50, "b/s/1": b"x" * 500})
def test_any_folder_is_documents_or_one_line(files):
    """Documents in order are the files, less pieces of white space; else the line names a file."""
    with tempfile.TemporaryDirectory() as root:
        path = Path(root) / "texts"
        path.mkdir()
        write(path, files)
        try:
            found = folder.documents(path, folder.scan(path))
        except contract.SourceError as error:
            assert "\n" not in str(error) and str(path) in str(error)
            bad = [name for name, content in files.items() if not is_text(content)]
            assert any(str(path / name) in str(error) for name in bad) or (
                not bad and not any(content.decode().strip() for content in files.values())
            )
            return
        for name, content in files.items():
            pieces = [d for d in found if d.file.path == str(path / name)]
            joined = "".join(d.text for d in pieces)
            assert joined.split() == content.decode().split()
            assert len(joined.encode()) == sum(d.size for d in pieces) <= len(content)
        assert len({d.key for d in found}) == len(found)


def is_text(content):
    try:
        return "\0" not in content.decode()
    except UnicodeDecodeError:
        return False


@settings(QUICK, max_examples=15)
@given(st.dictionaries(NAMES, CONTENT, max_size=5), st.integers(1, 40))
@example({"a/x.txt": lines(400)}, 16)
def test_any_folder_is_batches_or_one_line(files, length):
    with tempfile.TemporaryDirectory() as root:
        path = Path(root) / "texts"
        path.mkdir()
        write(path, files)
        data = Data("bytes", length, 2, source=f"folder:{path}")
        try:
            dataset = loader.load(data, 257, Path(root) / "cache")
        except ValueError as error:
            assert "\n" not in str(error)
            return
        batch = dataset.batch(0, 10_000, 3)
        assert batch.id_BL.shape == (3, length) and batch.id_BL.max() < 257
        for desk in dataset.desks:
            assert len(dataset.held_out(desk).id_BL) >= 1


@QUICK
@given(st.binary(max_size=300), st.integers(4, 40))
def test_cuts_lie_between_characters_and_cover_the_text(noise, limit):
    content = noise.decode("utf-8", "replace").encode()
    cuts = list(folder._cuts(content, limit))
    for start, stop in cuts:
        assert 0 < stop - start <= limit
        content[start:stop].decode("utf-8")
    assert [start for start, _ in cuts] == sorted(start for start, _ in cuts)
    left = sorted(set(range(len(content))) - {i for cut in cuts for i in range(*cut)})
    assert not bytes(content[i] for i in left).decode().strip()


@QUICK
@given(st.text(max_size=40), st.integers(1, 60), st.integers(2, 30))
def test_long_runs_are_cut_without_loss(text, times, run):
    whole = text * times
    before, pattern = tokenizer.RUN, tokenizer._RUN
    try:
        tokenizer.RUN = run
        tokenizer._RUN = tokenizer.re.compile(rf"\S{{{run},}}|\s{{{run},}}")
        assert "".join(tokenizer._parts(whole)) == whole
    finally:
        tokenizer.RUN, tokenizer._RUN = before, pattern


@QUICK
@given(st.integers(0, 2**31 - 1), st.integers(0, 10**6), st.sampled_from([1, 2, 3, 4, 6, 12]))
def test_any_number_of_processes_sees_the_same_batch(seed, step, count):
    dataset = small()
    parts = [dataset.batch(seed, step, 12, rows) for rows in np.split(np.arange(12), count)]
    for whole, rows in zip(dataset.batch(seed, step, 12), zip(*parts, strict=True), strict=True):
        np.testing.assert_array_equal(np.concatenate(rows), whole)


@functools.cache
def small():
    """A data set that is made once; its tokens stay mapped when the folder is gone."""
    with tempfile.TemporaryDirectory() as root:
        write(Path(root) / "texts", {"a/x.txt": lines(400)})
        data = Data("bytes", 16, 2, source=f"folder:{root}/texts")
        return loader.load(data, 257, Path(root) / "cache")
