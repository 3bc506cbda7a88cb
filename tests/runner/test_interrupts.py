"""Signals to the command and its processes: the first saves and stops, the second ends at once."""

import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import pytest

from experiments.runner import interrupts

ROOT = pathlib.Path(__file__).parents[2]
STUDY = "dense_topk_hash"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 75)])
def test_who_stopped_the_runs_is_the_exit_code(number, code):
    with interrupts.listening() as stopping:
        os.kill(os.getpid(), number)
        assert stopping.asked and stopping.stopped("saved").code == code
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)


LONG = ["--set", "train.steps=1_000_000", "--set", "train.max_epochs=1000"]


def test_signals_ask_first_and_then_stop(monkeypatch):
    monkeypatch.setattr(interrupts.os, "write", lambda place, text: None)
    before = signal.getsignal(signal.SIGTERM)
    with interrupts.listening() as asked:
        called = []
        asked.also = lambda: called.append(1)
        signal.raise_signal(signal.SIGTERM)
        assert asked.asked and called == [1]
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    with interrupts.listening() as asked:
        asked.nothing_to_save = True
        with pytest.raises(interrupts.Interrupted, match="before the first step"):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_second_signal_waits_until_the_first_is_told(capfd):
    stopping, done = interrupts.Stopping(), []

    def also():
        stopping.take(signal.SIGINT, None)  # as when it comes right now
        done.append(True)

    stopping.also = also
    with pytest.raises(KeyboardInterrupt):
        stopping.take(signal.SIGINT, None)
    assert done and stopping.asked


def test_a_stop_that_others_were_asked_for_is_the_systems():
    assert interrupts.Stopping().stopped("saved").code == 75


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 75)])
def test_before_the_first_step_the_first_signal_ends_the_run(number, code):
    with interrupts.listening() as stopping:
        stopping.nothing_to_save = True
        with pytest.raises(interrupts.Interrupted, match="begins again") as raised:
            os.kill(os.getpid(), number)
    assert raised.value.code == code


@pytest.mark.slow
@pytest.mark.parametrize("times", [1, 2])
def test_an_interrupted_run_saves_and_the_second_time_ends_at_once(times, tmp_path):
    words = ["run", STUDY, f"--workdir={tmp_path}", "--seeds=0"]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a child inherits "ignore"
    try:
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "experiments",
                *words,
                "--set",
                "train.steps=1_000_000",
                "--set",
                "train.max_epochs=1000",
            ],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
    finally:
        signal.signal(signal.SIGINT, before)
    try:
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline and not list(tmp_path.glob("*/seed0/metrics.jsonl")):
            assert process.poll() is None, process.communicate()
            time.sleep(0.2)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to every process
        if times == 2:
            assert any(line.startswith("stopping: ") for line in process.stderr)
            os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=120)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert out == "" and "Traceback" not in err
    if times == 2:
        assert process.returncode == 130
        assert err.splitlines()[-1] == "error: interrupted; the same command resumes a run"
    else:
        assert process.returncode == 0
        told = re.fullmatch(r"stopped, saved: (.*); the same command resumes", err.splitlines()[-1])
        for run in told[1].split(", "):
            arm, _, _, _, _, step = run.split()
            assert (tmp_path / arm / "seed0/checkpoints" / step).is_dir()
