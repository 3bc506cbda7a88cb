"""Files whole or not at all, one holder of a folder, one line for whatever else has the name."""

import json
import math
import os
import socket

import pytest

from moe import files
from moe.registry import Mistake

KINDS = {  # what lies there, and what is said of it as a file to be read
    "folder": (lambda path: path.mkdir(), "cannot be read (Is a directory)"),
    "loop": (lambda path: path.symlink_to(path.name), "cannot be read (Too many levels of"),
    "dangling": (lambda path: path.symlink_to("nowhere"), "cannot be read (No such file"),
    "nothing": (lambda path: None, "cannot be read (No such file"),
    "pipe": (os.mkfifo, "is no plain file"),
    "bytes": (lambda path: path.write_bytes(b"ab\xff"), "is no text in UTF-8 (byte 2)"),
    "deep": (lambda path: path.write_text("[" * 100_000), "not JSON (nested too deep)"),
    "digits": (lambda path: path.write_text("9" * 5000), "not JSON (Exceeds the limit (4300"),
    "empty": (lambda path: path.write_text(""), "not JSON (Expecting value"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_cannot_be_read_is_one_line_at_once(kind, tmp_path):
    make, why = KINDS[kind]
    make(tmp_path / "x")
    with pytest.raises(files.Unreadable) as error:
        files.content(tmp_path / "x")
    assert str(error.value).startswith(f"{tmp_path / 'x'}: {why}") and "\n" not in str(error.value)
    assert error.value.why.startswith(why)


def test_sockets_and_devices_are_no_files(tmp_path):
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s"))
        with pytest.raises(files.Unreadable, match=r"cannot be read .No such device"):
            files.raw(tmp_path / "s")
    with pytest.raises(files.Unreadable, match="is no plain file"):
        files.raw("/dev/zero")  # it has no end
    with pytest.raises(files.Unreadable, match="File name too long"):
        files.raw(tmp_path / ("x" * 300))


def test_a_place_is_a_path_with_its_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert files.place("~/runs", "--workdir") == tmp_path / "runs"
    assert files.place("a/b", "--workdir").parts == ("a", "b")
    (tmp_path / "loop").symlink_to("loop")
    for text, rule in [
        ("~no_such_user/x", "there is no user ~no_such_user"),
        ("a\0b", "is no path, it has a null character"),
        ("x" * 300, "is no path here (File name too long)"),
        (str(tmp_path / "loop"), "is no path here (Too many levels of symbolic links)"),
    ]:
        with pytest.raises(Mistake) as error:
            files.place(text, "--workdir")
        assert str(error.value) == f"--workdir: {rule}"


def test_json_is_strict_where_it_is_written():
    """What json.dumps makes of NaN is no JSON: other readers refuse the whole file."""
    row = {"a": math.nan, "b": [1.5, (math.inf, -math.inf)], "c": {"d": math.nan, "e": "NaN"}}
    written = '{"a": null, "b": [1.5, [null, null]], "c": {"d": null, "e": "NaN"}}'
    assert files.strict(row) == written
    assert files.strict({"a": 1}, indent=1) == json.dumps({"a": 1}, indent=1)
    with pytest.raises(TypeError, match="not JSON serializable"):
        files.strict({"a": object()})


def test_a_file_takes_the_name_of_a_link_and_leaves_what_it_points_to(tmp_path):
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "x").symlink_to("precious")
    files.write(tmp_path / "x", "new")
    assert (tmp_path / "x").read_text() == "new" and not (tmp_path / "x").is_symlink()
    assert (tmp_path / "precious").read_text() == "precious"


def test_a_temporary_name_that_is_taken_is_not_written_through(tmp_path, monkeypatch):
    """Somebody may have put a link of that name there, to a file that we may write."""
    (tmp_path / "precious").write_text("precious")
    monkeypatch.setattr(files.time, "monotonic_ns", lambda: 7)
    part = tmp_path / f".x.{os.getpid()}.7.part"
    part.symlink_to("precious")
    with pytest.raises(FileExistsError):
        files.write(tmp_path / "x", "new")
    assert (tmp_path / "precious").read_text() == "precious" and not (tmp_path / "x").exists()


def test_remove_takes_files_links_and_folders(tmp_path):
    kept = tmp_path / "kept"
    (kept / "below").mkdir(parents=True)
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to("kept")
    (tmp_path / "folder" / "below").mkdir(parents=True)
    for name in ("file", "link", "folder", "nothing"):
        files.remove(tmp_path / name)
        assert not os.path.lexists(tmp_path / name)
    assert (kept / "below").is_dir()


def test_a_folder_is_held_by_one(tmp_path):
    with files.hold(tmp_path):
        with pytest.raises(ValueError, match=f"folder={tmp_path}: is in use by process .* on "):
            with files.hold(tmp_path):
                pass
    (tmp_path / ".lock").write_text("a longer line than that of any process\n" * 9)
    with files.hold(tmp_path):
        said = (tmp_path / ".lock").read_text()
    assert said.startswith(f"process {os.getpid()} on ") and said.count("\n") == 1


def test_a_lock_that_is_a_link_is_refused_and_its_target_kept(tmp_path):
    """It was opened for writing, and cut to nothing."""
    (tmp_path / "precious").write_text("precious")
    (tmp_path / ".lock").symlink_to("precious")
    with pytest.raises(Mistake, match=r"\.lock: is no plain file .*; remove it"):
        with files.hold(tmp_path):
            pass
    assert (tmp_path / "precious").read_text() == "precious"


@pytest.mark.parametrize("kind", ["folder", "loop", "dangling", "pipe"])
def test_another_thing_in_place_of_the_lock_is_one_line(kind, tmp_path):
    KINDS[kind][0](tmp_path / ".lock")
    with pytest.raises(Mistake, match=r"\.lock: is no plain file.*; remove it$"):
        with files.hold(tmp_path):
            pass
    assert not (tmp_path / "nowhere").exists()


def test_a_file_system_without_locks_is_said(tmp_path, monkeypatch, capsys):
    def refuse(file, how):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(files.fcntl, "flock", refuse)
    with files.hold(tmp_path):
        pass
    assert "has no locks; run here only once" in capsys.readouterr().err
