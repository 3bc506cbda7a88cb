"""What a run says meanwhile, the pages that its processes ask for, and a disk that is full."""

import errno
import os

from experiments.results.folder import Task
from experiments.runner import progress
from experiments.runner.mistakes import is_mistake, line
from tests.training.test_train import experiment


def test_the_line_of_progress():
    row = {"step": 100, "tokens": 1000, "loss": 4.25, "tokens_per_s": 50.0, "mfu": 0.413}
    # 900 steps of 10 tokens at 50 a second: 180 seconds.
    assert progress.progress_line("top1 seed 0", 1000, row) == (
        "top1 seed 0: step 100/1,000, loss 4.2500, 50 tokens/s, MFU 41.3%, 0:03:00 left"
    )
    row |= {"tokens_per_s": None, "mfu": None}
    assert progress.progress_line("a", 1000, row) == "a: step 100/1,000, loss 4.2500"


def test_a_run_outlives_the_terminal_that_reads_it(tmp_path, monkeypatch):
    task = Task("s", "tiny", "top1", experiment(), (0,), tmp_path)
    row = {"kind": "train", "step": 4, "tokens": 64, "loss": 1.0, "tokens_per_s": 9.0, "mfu": 0.5}

    def write(text):
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

    with progress.Progress([task], [1.0]) as shown:
        monkeypatch.setattr(progress.sys.stderr, "write", write)
        shown.take("top1", 0, row)
        shown.take("top1", 0, {"kind": "step", "step": 4})
        monkeypatch.undo()
    assert shown._steps == {("top1", 0): 4}


def test_an_unknown_device_is_said_once(tmp_path, capsys):
    task = Task("s", "tiny", "top1", experiment(), (0,), tmp_path)
    row = {"kind": "train", "step": 4, "tokens": 64, "loss": 1.0, "tokens_per_s": 9.0, "mfu": None}
    with progress.Progress([task], [1.0]) as shown:
        shown.take("top1", 0, row)
        shown.take("top1", 0, row)
        shown.take("top1", 0, {"kind": "notice", "message": "hello"})
        shown.take("top1", 0, {"kind": "stopped", "step": 4})
    assert shown.stopped_line() == (
        "stopped, saved: top1 seed 0 at step 4; the same command resumes"
    )
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if "unknown device" in line] == [lines[0]]
    assert lines[1:] == [
        "top1 seed 0: step 4/12, loss 1.0000, 9 tokens/s, 0:00:14 left",  # 8 steps x 16 / 9
        "top1 seed 0: hello",
    ]


def test_huge_pages_are_asked_for_in_new_processes_and_once(monkeypatch):
    from experiments.runner import huge_pages

    started = []
    monkeypatch.setattr(huge_pages.os, "execv", lambda *command: started.append(command))
    monkeypatch.setattr(huge_pages.sys, "platform", "linux")
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.perturb=0")
    with huge_pages.in_new_processes():
        asked = huge_pages.os.environ["GLIBC_TUNABLES"]
        assert asked == "glibc.malloc.perturb=0:glibc.malloc.hugetlb=1"
        huge_pages.restart()
        assert not started  # this process has them
    assert huge_pages.os.environ["GLIBC_TUNABLES"] == "glibc.malloc.perturb=0"
    huge_pages.restart()
    assert started == [(huge_pages.sys.executable, huge_pages.sys.orig_argv)]
    assert huge_pages.os.environ["GLIBC_TUNABLES"] == asked


def test_a_full_disk_is_told_with_its_folder():
    for file in (None, "w/x"):
        error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), file)
        assert is_mistake(error)
        assert line(error, "w") == (
            f"{file or '--workdir=w'}: No space left on device; what is saved is kept; "
            "the same command resumes"
        )
