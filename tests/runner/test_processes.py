"""Several processes on this machine train what one does, and resume what others began."""

import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from moe.devices import processes
from moe.training.record import read

COMMAND = pathlib.Path(__file__).parents[1] / "fakes/command.py"
FIELDS = [
    "train.steps=4",
    "train.log_every=1",
    "train.save_every=2",
    "data.sequence_length=16",
    "model.model_width=32",
    "model.vocab_size=258",
]
ARMS = ("top2", "hash_balanced")  # one learns, one is fitted to the corpus before step 0


def start(workdir, mesh_text, processes, *more):
    """The command in so many processes."""
    words = ["run", "dense_topk_hash", f"--arms={','.join(ARMS)}", "--seeds=0"]
    fields = [f"--set={field}" for field in (*FIELDS, *more)]
    words += [f"--workdir={workdir}", f"--mesh={mesh_text}", *fields]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    if processes > 1:
        words += [f"--coordinator=127.0.0.1:{port}", f"--num_processes={processes}"]
    return [
        subprocess.Popen(
            [sys.executable, COMMAND, *words, *([f"--process_id={i}"] if processes > 1 else [])],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"},
        )
        for i in range(processes)
    ]


def train(workdir, mesh_text, processes=1):
    """Runs the command in so many processes; returns what the first one printed."""
    started = start(workdir, mesh_text, processes)
    try:
        texts = [process.communicate(timeout=900)[0] for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0] * processes, "\n".join(texts)
    assert all("nats per token" not in text for text in texts[1:])  # one writes and speaks
    return texts[0]


def record(workdir, arm):
    """Losses, gradient norms and loads of a run, and its result."""
    rows = read(workdir / arm / "seed0" / "metrics.jsonl")
    result = json.loads((workdir / arm / "seed0" / "result.json").read_text())
    steps = [
        (r["step"], r["loss"], r["grad_norm"], *r["router"]["max_violation"])
        for r in rows
        if r["kind"] == "train"
    ]
    return np.array(steps), result


@pytest.mark.slow
def test_processes_change_no_result_and_others_go_on_where_they_stopped(tmp_path):
    one, two, four = (tmp_path / name for name in ("one", "two", "four"))
    train(one, "data:2,expert:2")
    train(two, "data:2,expert:2", processes=2)
    shutil.copytree(two, four)
    shutil.rmtree(four / "top2/seed0/checkpoints/4")  # as if killed between its two saves
    (four / "top2/seed0/result.json").unlink()
    train(four, "fsdp:2,expert:2", processes=4)
    for arm in ARMS:
        want, result = record(one, arm)
        assert want[:, 0].tolist() == [1, 2, 3, 4] and result["environment"]["processes"] == 1
        for place, count in ((two, 2), (four, 4 if arm == "top2" else 2)):
            steps, result_there = record(place, arm)
            np.testing.assert_allclose(steps, want, rtol=1e-5, atol=1e-6)
            assert abs(result_there["val_loss"] - result["val_loss"]) < 1e-5
            assert result_there["environment"]["processes"] == count
    assert record(four, "top2")[1]["environment"]["mesh"] == "fsdp:2,expert:2"
    saved = two / "top2" / "seed0" / "experiment.txt"
    assert saved.read_text() == (one / "top2" / "seed0" / "experiment.txt").read_text()


@pytest.mark.parametrize(
    ("coordinator", "count", "number", "line"),
    [
        ("here", 2, 0, "--coordinator=here: must be HOST:PORT of process 0, or auto"),
        ("h:0", 2, 0, "--coordinator=h:0: must be HOST:PORT of process 0, or auto"),
        ("h:70000", 2, 0, "--coordinator=h:70000: must be HOST:PORT of process 0, or auto"),
        ("h:1", None, 0, "--num_processes: is missing beside --coordinator=h:1"),
        ("h:1", 2, None, "--process_id: is missing beside --coordinator=h:1"),
        ("h:1", 2, 2, "--process_id=2: must be in [0, num_processes=2)"),
        ("h:1", 2, -1, "--process_id=-1: must be in [0, num_processes=2)"),
        ("auto", 2, None, "--coordinator=auto: takes no --num_processes and no --process_id"),
    ],
)
def test_a_bad_address_is_one_line(coordinator, count, number, line):
    with pytest.raises(ValueError) as error:
        processes.join(coordinator, count, number)
    assert str(error.value) == line


def two_at_work(workdir):
    """Two processes that train for long, after a few steps."""
    processes = start(workdir, "data:2", 2, "train.steps=100000")
    while not any(len(path.read_text().splitlines()) > 3 for path in workdir.glob("*/*/*.jsonl")):
        assert all(process.poll() is None for process in processes), processes[0].communicate()[0]
        time.sleep(0.2)
    return processes


@pytest.mark.slow
def test_when_a_process_dies_the_other_stops_in_time_and_says_why(tmp_path):
    first, second = two_at_work(tmp_path)
    second.kill()
    text = first.communicate(timeout=2 * processes.PATIENCE_S)[0]
    second.communicate()
    # Its own line where a collective failed; JAX ends a process that waits for the dead one.
    lines = [line for line in text.splitlines() if line.startswith("error: ")]
    # No mistake of its own, exit code 2, so that what starts crashed ones again starts it too.
    assert first.returncode not in (0, 2) and len(lines) <= 1, text
    assert "resume" in "".join(lines) or "another task died" in text


@pytest.mark.slow
def test_a_signal_to_one_process_stops_all_after_a_save(tmp_path):
    processes = two_at_work(tmp_path)
    processes[1].send_signal(signal.SIGTERM)
    texts = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [75, 75], "\n".join(texts)
    arm, step = re.search(r"(\w+) seed 0 at step (\d+)", texts[0]).groups()
    assert (tmp_path / arm / "seed0" / "checkpoints" / step).is_dir()
