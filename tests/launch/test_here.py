"""Recipes of this machine: a dry run prints the exact commands; local processes really train."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from launch import __main__ as launch
from launch.here import Local
from launch.targets import STOPPED

ROOT = pathlib.Path(__file__).parents[2]
WORDS = ["run", "dense_topk_hash/top2", "--workdir=/mnt/bucket/a b", "--mesh=data:4,expert:4"]
RUN = "-m experiments run dense_topk_hash/top2 '--workdir=/mnt/bucket/a b' --mesh=data:4,expert:4"


def dry(capsys, *words):
    """What a dry run prints, line by line."""
    assert launch.main([*words, "--dry-run", "--", *WORDS]) == 0
    return capsys.readouterr().out.splitlines()


def test_one_host(capsys):
    (line,) = dry(capsys, "gpus", "--gpus=4", "--python=py")
    assert line == f"env CUDA_VISIBLE_DEVICES=0,1,2,3 py {RUN}"
    assert dry(capsys, "local", "--processes=2", "--port=9000", "--python=py") == [
        f"env JAX_PLATFORMS=cpu py {RUN} --coordinator=127.0.0.1:9000 --num_processes=2 "
        f"--process_id={i}"
        for i in range(2)
    ]


def test_help_names_every_target(capsys):
    assert launch.main(["--help"]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in launch.TARGETS)


def test_the_first_local_process_that_fails_ends_the_others(tmp_path):
    # Stands in for Python: process 1 fails at once, process 0 would sleep for a minute.
    program = tmp_path / "python"
    program.write_text('#!/bin/sh\ncase "$*" in *process_id=1*) exit 3;; esac\nexec sleep 60\n')
    program.chmod(0o755)
    assert Local(processes=2, python=str(program)).start(WORDS) == 3


def test_a_local_process_that_was_stopped_leaves_the_others_time_to_save(tmp_path):
    # Process 1 has saved at once, process 0 needs a second longer; a signal would end it with 143.
    program = tmp_path / "python"
    program.write_text('#!/bin/sh\ncase "$*" in *process_id=1*) exit 75;; esac\nsleep 1; exit 75\n')
    program.chmod(0o755)
    began = time.monotonic()
    assert Local(processes=2, python=str(program)).start(WORDS) == STOPPED
    assert time.monotonic() - began >= 1


@pytest.mark.parametrize("target", ["local", "gpus"])
def test_ctrl_c_leaves_the_processes_time_to_save(target, tmp_path):
    # Each needs half a second to save; whatever else reached it meanwhile would end it with 9.
    program = tmp_path / "python"
    program.write_text(
        f"#!{sys.executable}\nimport pathlib, signal, sys, time\n"
        "def save(number, frame):\n    signal.signal(signal.SIGTERM, lambda *a: sys.exit(9))\n"
        "    time.sleep(0.5)\n    sys.exit(0)\n"
        "signal.signal(signal.SIGINT, save)\n"
        f"pathlib.Path({str(tmp_path)!r}, sys.argv[-1][2:]).write_text('')\ntime.sleep(60)\n"
    )
    program.chmod(0o755)
    words = [sys.executable, "-m", "launch", target, f"--python={program}", "--", "run", "--there"]
    heard = signal.signal(signal.SIGINT, signal.default_int_handler)  # a child inherits "ignore"
    try:
        launcher = subprocess.Popen(words, cwd=ROOT, start_new_session=True)
    finally:
        signal.signal(signal.SIGINT, heard)
    there = {"local": ["process_id=0", "process_id=1"], "gpus": ["there"]}[target]
    deadline = time.monotonic() + 30
    while not all((tmp_path / name).exists() for name in there):
        assert time.monotonic() < deadline and launcher.poll() is None
        time.sleep(0.05)
    os.killpg(launcher.pid, signal.SIGINT)  # as a terminal does: to every process
    assert launcher.wait(timeout=30) == 0


@pytest.mark.slow
def test_local_processes_train(tmp_path):
    command = ROOT / "tests/fakes/command.py"
    python = tmp_path / "python"  # `python -m experiments WORDS` on the synthetic data set
    python.write_text(f'#!/bin/sh\nshift 2\nexec "{sys.executable}" "{command}" "$@"\n')
    python.chmod(0o755)
    fields = ("train.steps=2", "data.sequence_length=16", "model.model_width=32")
    words = ["run", "dense_topk_hash/top1", "--seeds=0", f"--workdir={tmp_path / 'a b'}"]
    words += ["--mesh=data:2", *(f"--set={field}" for field in fields)]
    assert launch.main(["local", "--processes=2", f"--python={python}", "--", *words]) == 0
    result = json.loads((tmp_path / "a b/top1/seed0/result.json").read_text())
    assert result["environment"]["processes"] == 2 and result["environment"]["mesh"] == "data:2"
