"""A process of a run that is killed: which run it had, what killed it, and how to go on."""

import os
import pathlib
import signal
import subprocess
import sys
import time
import types

import pytest

from experiments.results.folder import Task
from experiments.runner import workers

ROOT = pathlib.Path(__file__).parents[2]
SMALL = (
    *("train.steps=100000", "train.batch=2", "train.save_every=100", "data.sequence_length=16"),
    *("model.model_width=32", "train.log_every=1"),
)
TASKS = [Task("s", "tiny", arm, None, (0, 1), pathlib.Path("x")) for arm in ("dense", "top1")]
# Of each process its number, its task, its seed: 11 trains dense at seed 1, 12 top1 at seed 0.
DOING = [11, 0, 1, 12, 1, 0]
AGAIN = "; the same command resumes"


@pytest.mark.parametrize(
    ("ends", "line"),
    [
        # The others are asked to stop by SIGTERM, which is not told.
        (
            {11: -signal.SIGKILL, 12: -signal.SIGTERM},
            "dense seed 1: its process was killed by SIGKILL (signal 9), most often for want of "
            "memory: lower --jobs or train.batch",
        ),
        ({11: 0, 12: -signal.SIGABRT}, "top1 seed 0: its process was killed by SIGABRT (signal 6)"),
        (
            {11: -signal.SIGSEGV, 12: None},
            "dense seed 1: its process was killed by SIGSEGV (signal",
        ),
        ({12: 3}, "top1 seed 0: its process ended with code 3"),
        ({12: -signal.SIGTERM}, "top1 seed 0: its process was killed by SIGTERM (signal 15)"),
        ({13: -signal.SIGKILL}, "a process that had not begun: its process was killed by SIGKILL"),
        ({}, "a process is gone"),
    ],
)
def test_the_line_names_the_run_and_the_signal(ends, line):
    gone = [types.SimpleNamespace(pid=pid, exitcode=code) for pid, code in ends.items()]
    said = workers._killed(gone, TASKS, DOING)
    assert said.startswith(line) and said.endswith(AGAIN)


@pytest.mark.slow
def test_a_process_that_is_killed_is_one_line(tmp_path):
    words = ["run", "dense_topk_hash", f"--workdir={tmp_path}", "--arms=dense,top1", "--seeds=3"]
    words += ["--jobs=2", *(f"--set={assignment}" for assignment in SMALL)]
    started = subprocess.Popen(
        [sys.executable, "tests/fakes/command.py", *words],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 300
    while not (tmp_path / "top1/seed3/metrics.jsonl").exists():
        assert time.monotonic() < deadline and started.poll() is None
        time.sleep(0.1)
    os.kill(trainer(started.pid, tmp_path / "top1/seed3/.lock"), signal.SIGKILL)
    out, err = started.communicate(timeout=200)
    assert (started.returncode, out) == (2, "")
    last = err.splitlines()[-1]
    assert last.startswith("error: top1 seed 3: its process was killed by SIGKILL (signal 9), most")
    assert last.endswith(AGAIN) and "Traceback" not in err


def trainer(parent, lock):
    """The number of the process that holds the folder, which its lock says: a child of ours."""
    number = int(lock.read_text().split()[1])
    assert int((pathlib.Path("/proc") / str(number) / "stat").read_text().split()[3]) == parent
    return number
