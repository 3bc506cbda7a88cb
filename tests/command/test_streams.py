"""Standard streams that are closed, full, read by nobody, or of a terminal with few letters."""

import io
import pathlib
import subprocess
import sys

import pytest

from experiments.command import streams

ROOT = pathlib.Path(__file__).parents[2]
NO_STUDY = "error: report /nowhere: does not exist; it takes the --workdir of a run\n"
LINES = {  # how the command is started: exit code, and what is on standard error
    "list hash >/dev/full": (2, "error: standard output: No space left on device\n"),
    "list hash >&-": (2, "error: standard output: Bad file descriptor\n"),
    "--help | (exec <&-; sleep 3)": (2, "error: standard output: Broken pipe\n"),
    "report /nowhere >&-": (2, NO_STUDY),
    "report /nowhere >/dev/full": (2, NO_STUDY),
    "list hash >/dev/null 2>&-": (0, ""),
    "report /nowhere 2>/dev/full": (2, ""),
    "list hash >/dev/null <&-": (0, ""),
}


@pytest.mark.parametrize("line", LINES)
def test_a_stream_that_takes_no_more_is_one_line(line):
    program, words = f"{sys.executable} -m experiments", line
    if "|" in line:  # the exit code of the command, not of who reads it
        words = f"{line}; exit ${{PIPESTATUS[0]}}"
    shell = ["bash", "-c", f"{program} {words}"]
    done = subprocess.run(shell, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == LINES[line]


def test_python_without_docstrings_and_assertions_answers_the_same():
    words = ["-m", "experiments", "list", "hash"]
    plain, stripped = (
        subprocess.run([sys.executable, *flags, *words], cwd=ROOT, capture_output=True, text=True)
        for flags in ([], ["-OO"])
    )
    assert (stripped.returncode, stripped.stderr) == (0, "") and stripped.stdout == plain.stdout


@pytest.mark.parametrize(
    ("encoding", "shown"), [("ascii", "-0.12 - x2 ... >= ? ?\n"), ("utf-8", "−0.12 – ×2 … ≥ ü ?\n")]
)
def test_letters_that_the_terminal_does_not_have_are_replaced(encoding, shown):
    """U+2212, a true minus sign, stands in every table, and any letter in a path."""
    raw = io.BytesIO()
    stream = streams.writer(raw, encoding)
    print("−0.12 – ×2 … ≥ ü \udcff", file=stream, flush=True)
    assert raw.getvalue().decode(encoding) == shown
