"""The door: commands and flags found, errors in one line, exit codes, nothing heavy imported."""

import errno
import os
import pathlib
import subprocess
import sys
import types

import pytest
from absl import flags

from experiments.command import listing
from experiments.runner.interrupts import Interrupted, Preempted
from moe import registry

ROOT = pathlib.Path(__file__).parents[2]
STUDY = "dense_topk_hash"

MISTAKES = {  # what is wrong: the words, and the line that must come back
    "no command": (
        "",
        "COMMAND: is missing (valid: list, show, run, report, diff, analyze, bench, data); ",
    ),
    "unknown command": (
        "rnu x",
        "rnu: no such command; did you mean 'run'? (valid: analyze, bench, data, diff, ",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_every_mistake_is_one_line(mistake, mistaken):
    mistaken(*MISTAKES[mistake])


def fresh(*words):
    """Runs a command line in a process of its own, from the root of the repository."""
    return subprocess.run(
        [sys.executable, "-m", "experiments", *words], cwd=ROOT, capture_output=True, text=True
    )


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("rnu", "x"), "rnu: no such command; did you mean 'run'?"),
        (("show", STUDY, "--sizee=tiny"), "--sizee: no such flag; did you mean 'size'?"),
        (
            ("show", f"{STUDY}/top2", "--set=model.moe.router.k=99"),
            "model.moe.router.k=99: must be",
        ),
    ],
)
def test_mistakes_in_a_process_of_their_own(words, line):
    done = fresh(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {line}") and done.stderr.count("\n") == 1


def test_an_error_that_is_no_mistake_keeps_its_traceback(call, monkeypatch):
    monkeypatch.setattr(listing, "listing", lambda: int("x"))
    with pytest.raises(ValueError, match="invalid literal"):
        call("list")
    monkeypatch.setattr(listing, "listing", lambda: open("/no/such/file"))
    with pytest.raises(FileNotFoundError):
        call("list")
    monkeypatch.undo()
    malformed = types.SimpleNamespace(arms=(("an arm without its line",),), sizes=())
    lookup = registry.lookup
    studies = {"study": lambda name: malformed}
    monkeypatch.setattr(
        registry, "lookup", lambda kind, name: studies.get(kind, lambda n: lookup(kind, n))(name)
    )
    with pytest.raises(ValueError, match="dictionary update sequence"):  # ours, but not raised so
        call("list")


def test_a_full_disk_is_one_line(call, monkeypatch):
    def fail():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "runs/x")

    monkeypatch.setattr(listing, "listing", fail)
    assert call("list") == (2, "", "error: runs/x: No space left on device\n")


@pytest.mark.parametrize(("stopped", "code"), [(Interrupted, 0), (Preempted, 75)])
def test_the_exit_code_says_whether_to_start_again(stopped, code, call, monkeypatch):
    def stop():
        raise stopped("stopped, saved")

    monkeypatch.setattr(listing, "listing", stop)
    assert call("list") == (code, "", "stopped, saved\n")


def test_an_interrupt_is_one_line_and_exit_code_130(call, monkeypatch):
    def interrupt():
        raise KeyboardInterrupt

    monkeypatch.setattr(listing, "listing", interrupt)
    assert call("list") == (130, "", "error: interrupted; the same command resumes a run\n")


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["list"],
        ["list", "hash"],
        ["list", "dispatchers"],
        ["show", "x"],
        ["run", "--help"],
    ],
)
def test_answers_without_heavy_imports(words):
    code = (
        "import runpy, sys\n"
        f"sys.argv = ['experiments', *{words!r}]\n"
        "try:\n    runpy.run_module('experiments', run_name='__main__')\n"
        "except SystemExit:\n    pass\n"
        "print(*({'jax', 'flax', 'numpy', 'orbax', 'grain'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stderr.splitlines()[-1] == ""


def test_flags_do_not_leak_between_calls(call):
    call("show", STUDY, "--size=small", "--set", "train.steps=1")
    assert flags.FLAGS["size"].value == "tiny" and flags.FLAGS["set"].value == []
