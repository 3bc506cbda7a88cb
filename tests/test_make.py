"""make: what it prints, which environment it takes, and that no tier of tests hides the other."""

import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
MAKEFILE = (ROOT / "Makefile").read_text("utf-8")
MINE = f"{sys.version_info[0]}.{sys.version_info[1]}"


def make(*words):
    """Runs make in the clone, out of the reach of variables of the shell."""
    unset = [f"--unset={name}" for name in ("PYTHON", "VENV", "MAKEFLAGS", "MAKELEVEL")]
    command = ["env", *unset, "make", "--no-print-directory", *map(str, words)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.fixture
def environment(tmp_path):
    """Makes a folder that looks like an environment: a Python that writes down what it is asked."""

    def build(number, then=""):
        python = tmp_path / "bin" / "python"
        python.parent.mkdir()
        (tmp_path / "pyvenv.cfg").write_text("")
        says = f'case "$1" in -c) echo {number}; exit;; esac\necho "$*" >> {tmp_path}/asked\n{then}'
        python.write_text(f"#!/bin/sh\n{says}\n")
        python.chmod(0o755)
        return tmp_path

    return build


def test_make_alone_says_what_it_can_do():
    done = make()
    assert done.returncode == 0
    (targets,) = re.findall(r"\.PHONY:(.*)", MAKEFILE)
    for name in set(targets.split()) - {"environment"}:
        assert re.search(rf"^  {name} +\S", done.stdout, re.MULTILINE), name


def test_another_python_is_refused_in_one_line_and_nothing_changes(environment):
    folder = environment("3.99")
    done = make("lint", f"VENV={folder}", f"PYTHON={sys.executable}")
    assert done.returncode == 2
    assert f"is Python {MINE} and {folder} holds 3.99" in done.stderr
    assert "make clean" in done.stderr and f"VENV=.venv-py{MINE.replace('.', '')}" in done.stderr
    assert done.stdout == "" and done.stderr.count("\n") == 1
    assert not (folder / "asked").exists()


def test_a_python_that_is_missing_is_one_line(environment, tmp_path):
    done = make("lint", f"VENV={tmp_path / 'none'}", "PYTHON=no-such-python")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "PYTHON=no-such-python is missing or older than 3.11" in done.stderr
    folder = environment("")  # a Python that no longer starts
    done = make("lint", f"VENV={folder}")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert f"the Python of {folder} is gone" in done.stderr


def test_an_environment_is_used_whatever_python_made_it_and_updated_not_cleared(environment):
    folder = environment("3.99")
    (folder / "mine").write_text("kept")
    (folder / ".runtime-1").write_text("")  # of other requirements
    for count in (2, 2):  # the second time nothing is installed
        done = make("lint", f"VENV={folder}")
        assert done.returncode == 0, done.stderr
        asked = (folder / "asked").read_text().splitlines()
        assert sum("pip install" in line for line in asked) == count
        assert not any(line.startswith("-m venv") for line in asked)
    assert (folder / "mine").exists() and not (folder / ".runtime-1").exists()


@pytest.mark.parametrize(
    ("fails", "said", "code"),
    [
        ("not slow", "fast tests failed, slow tests passed", 2),
        ("-m slow", "fast tests passed, slow tests failed", 2),
        ("nothing", "fast tests passed, slow tests passed", 0),
    ],
)
def test_both_tiers_run_whatever_the_first_says(environment, fails, said, code):
    folder = environment("3.99", f'case "$*" in *"{fails}"*) exit 1;; esac')
    done = make("test", f"VENV={folder}")
    asked = [line for line in (folder / "asked").read_text().splitlines() if "pytest" in line]
    assert ["not slow" in line for line in asked] == [True, False]
    assert done.returncode == code and said in done.stdout
