"""One holder of a folder."""

import pytest

from moe import files


def test_a_folder_is_held_by_one(tmp_path):
    with files.hold(tmp_path):
        with pytest.raises(ValueError, match=f"folder={tmp_path}: is in use by process .* on "):
            with files.hold(tmp_path):
                pass
    with files.hold(tmp_path):
        pass


def test_a_file_system_without_locks_is_said(tmp_path, monkeypatch, capsys):
    def refuse(file, how):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(files.fcntl, "flock", refuse)
    with files.hold(tmp_path):
        pass
    assert "has no locks; run here only once" in capsys.readouterr().err
