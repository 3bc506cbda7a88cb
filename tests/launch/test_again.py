"""A command is started again until it is done: after a stop for ever, after crashes so often."""

import signal
import subprocess
import sys
import time

import pytest

from launch import again
from launch.targets import ROOT


@pytest.mark.parametrize(
    ("codes", "crashes", "ends_after"),
    [
        ([0], 3, (0, 1)),
        ([75, 75, 75, 75, 0], 0, (0, 5)),
        ([1, 75, 1, 0], 2, (0, 4)),
        ([1, 1, 1], 2, (1, 3)),
        ([2], 3, (2, 1)),  # a mistake stays one
        ([75, 2], 3, (2, 2)),
        ([-9, 0], 1, (0, 2)),  # killed
        ([-9], 0, (137, 1)),
    ],
)
def test_how_often(codes, crashes, ends_after, tmp_path, monkeypatch):
    monkeypatch.setattr(again, "PAUSE_S", 0)
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    lines = ["kill -9 $$" if code == -9 else f"exit {code}" for code in codes]
    for i, line in enumerate(lines, 1):
        (tmp_path / str(i)).write_text(line)
    script = f"echo >> {tmp_path}/log; . {tmp_path}/$(wc -l < {tmp_path}/log)"
    try:
        code = again.main([f"--crashes={crashes}", "--", "sh", "-c", script])
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
    assert (code, len((tmp_path / "log").read_text().splitlines())) == ends_after


def test_a_signal_goes_to_the_command_which_is_then_not_started_again(tmp_path):
    saves = f"trap 'exit 75' TERM; echo >> {tmp_path}/log; while :; do sleep 0.05; done"
    words = [sys.executable, "-m", "launch.again", "--crashes=3", "--", "sh", "-c", saves]
    supervisor = subprocess.Popen(words, cwd=ROOT)
    deadline = time.monotonic() + 30
    while not (tmp_path / "log").exists():
        assert time.monotonic() < deadline and supervisor.poll() is None
        time.sleep(0.05)
    supervisor.terminate()
    assert supervisor.wait(timeout=30) == 75
    assert (tmp_path / "log").read_text() == "\n"


@pytest.mark.parametrize("words", [[], ["--crashes=x", "--", "a"], ["--crashes=1", "a", "b"]])
def test_a_mistake_is_one_line(words, capsys):
    assert again.main(words) == 2
    assert capsys.readouterr().err.count("\n") == 1
