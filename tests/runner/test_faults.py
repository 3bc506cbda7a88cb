"""Faults with real processes and real signals: what is left is what an undisturbed run leaves."""

import contextlib
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from moe import files
from moe.checkpoint import places, restore
from moe.checkpoint.format import open_orbax, read_record
from moe.training import record
from tests.fakes import gcs

ROOT = pathlib.Path(__file__).parents[2]
STEPS = 20
KILLS = int(os.environ.get("MOE_KILLS", "3"))  # 50 for the number in the README
SETTINGS = [
    f"train.steps={STEPS}",
    "train.batch=2",
    "train.log_every=1",
    "train.eval_every=5",
    "train.save_every=1",
    "data.sequence_length=16",
    "model.model_width=32",
]

pytestmark = pytest.mark.slow


def started(workdir, *more, **settings):
    """The command in a process of its own, which hears signals whatever this one does with them."""
    words = ["run", "dense_topk_hash/top1", f"--workdir={workdir}", "--seeds=0"]
    words += [f"--set={assignment}" for assignment in SETTINGS]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a child inherits "ignore"
    try:
        return subprocess.Popen(
            [sys.executable, "tests/fakes/run.py", *words, *more],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), **settings},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    finally:
        signal.signal(signal.SIGINT, before)


def ended(process):
    """(exit code, stderr) of a process that ends by itself."""
    out, err = process.communicate(timeout=300)
    assert out == ""
    return process.returncode, err


def step_of(workdir):
    rows = record.read(workdir / "top1/seed0/metrics.jsonl")
    return rows[-1]["step"] if rows else 0


def wait_for(process, reached):
    deadline = time.monotonic() + 300
    while not reached():
        if process.poll() is not None:
            return
        assert time.monotonic() < deadline
        time.sleep(0.002)


def left(workdir):
    """What a finished run leaves, without times: rows, result, checksums of the whole state."""
    run = workdir / "top1/seed0"
    timed = ("tokens_per_s", "mfu")
    rows = [
        {k: v for k, v in row.items() if k not in timed}
        for row in record.read(run / "metrics.jsonl")
    ]
    result = files.unsealed((run / "result.json").read_text())
    del result["timing"], result["environment"]["commit"]  # somebody may commit meanwhile
    orbax = open_orbax()
    saved = read_record(orbax, places.at(run / "checkpoints"), STEPS)
    orbax.close()
    return rows, result, saved["leaves"], places.at(run / "checkpoints").steps()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("undisturbed")
    code, err = ended(started(workdir))
    assert code == 0, err
    return workdir


def same(workdir, undisturbed):
    assert left(workdir) == left(undisturbed)
    one, two = (
        restore.restore_params(place / "top1/seed0/checkpoints") for place in (workdir, undisturbed)
    )
    np.testing.assert_array_equal(one["embedding_VD"], two["embedding_VD"])


def test_the_record_of_an_undisturbed_run(undisturbed):
    rows, result, leaves, steps = left(undisturbed)
    kinds = [(row["kind"], row["step"]) for row in rows]
    want = [("train", step) for step in range(1, STEPS + 1)]
    want += [("eval", step) for step in range(5, STEPS + 1, 5)]
    assert sorted(kinds) == sorted(want) and len(leaves) > 20 and result["steps"] == STEPS
    assert {0, STEPS - 1, STEPS} <= set(steps)


def test_kill_9_at_random_moments_changes_nothing(undisturbed, tmp_path):
    """One run, killed again and again, each time a few steps and milliseconds after it resumed."""
    chance, killed, in_a_save, run = random.Random(0), 0, 0, 0
    while killed < KILLS:
        workdir = tmp_path / f"run {run}"
        run += 1
        finished = False
        while not finished and killed < KILLS:
            process = started(workdir)
            goal = step_of(workdir) + chance.randint(1, 6)
            wait_for(process, lambda: step_of(workdir) >= goal)  # noqa: B023
            time.sleep(chance.random() * 0.05)
            process.kill()
            process.communicate()
            finished = process.returncode == 0
            killed += process.returncode == -signal.SIGKILL
            in_a_save += bool(list(workdir.glob("*/*/checkpoints/*.orbax-checkpoint-tmp*")))
        code, err = ended(started(workdir))
        assert code == 0, err
        same(workdir, undisturbed)
    print(f"{killed} kills, {in_a_save} of them during a save, in {run} runs")


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGTERM, 75), (signal.SIGINT, 0)])
def test_a_signal_saves_the_step_and_says_how_to_resume(number, exit_code, undisturbed, tmp_path):
    process = started(tmp_path, f"--set=train.save_every={STEPS}")
    wait_for(process, lambda: step_of(tmp_path) >= 7)
    process.send_signal(number)
    sent = step_of(tmp_path)
    code, err = ended(process)
    step = step_of(tmp_path)
    assert code == exit_code and sent <= step <= sent + 1, err  # the step that was under way
    assert places.at(tmp_path / "top1/seed0/checkpoints").steps() == [0, step] and step < STEPS
    assert err.splitlines()[-1] == (
        f"stopped, saved: top1 seed 0 at step {step}; the same command resumes"
    )
    code, err = ended(started(tmp_path, f"--set=train.save_every={STEPS}"))
    assert code == 0
    assert left(tmp_path)[:3] == left(undisturbed)[:3]


def test_the_newest_checkpoint_damaged_and_the_run_goes_on(undisturbed, tmp_path):
    shutil.copytree(undisturbed, tmp_path, dirs_exist_ok=True)
    (tmp_path / "top1/seed0/result.json").unlink()
    file = max((tmp_path / f"top1/seed0/checkpoints/{STEPS}").rglob("*"), key=size)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 4
    file.write_bytes(content)
    code, err = ended(started(tmp_path))
    assert code == 0
    assert f"checkpoints/{STEPS}: damaged (" in err and f"goes on from step {STEPS - 1}" in err
    same(tmp_path, undisturbed)
    for file in (tmp_path / "top1/seed0/checkpoints").rglob("*.json"):
        file.write_text("")
    (tmp_path / "top1/seed0/result.json").unlink()
    code, err = ended(started(tmp_path))
    assert code == 2 and err.splitlines()[-1].startswith("error: ")
    assert "no checkpoint can be used" in err.splitlines()[-1] and "Traceback" not in err


def size(path):
    return path.stat().st_size if path.is_file() else 0


def test_a_full_disk_stops_in_one_line_and_the_run_resumes(undisturbed, tmp_path):
    more = ["--set=train.save_every=3"]
    process = started(tmp_path, *more)
    wait_for(process, lambda: step_of(tmp_path) >= 8)
    process.kill()
    process.communicate()
    before = places.at(tmp_path / "top1/seed0/checkpoints").steps()
    code, err = ended(started(tmp_path, *more, LARGEST_FILE="40000"))
    assert code == 2 and "Traceback" not in err, err
    last = err.splitlines()[-1]
    assert last.startswith("error: ") and "could not be saved" in last and "resumes" in last
    assert places.at(tmp_path / "top1/seed0/checkpoints").steps() == before
    assert ended(started(tmp_path, *more))[0] == 0
    assert left(tmp_path)[:3] == left(undisturbed)[:3]


@pytest.fixture
def small_disk(tmp_path):
    """A folder with 40 MB of room, and a function that leaves no more than so many bytes."""
    words = ["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", str(tmp_path)]
    if subprocess.run(words, capture_output=True).returncode:
        pytest.skip("only root can mount a small disk")

    def leave(size):
        room = os.statvfs(tmp_path)
        with contextlib.suppress(OSError), open(tmp_path / "filler", "wb", buffering=0) as file:
            file.write(bytes(max(0, room.f_bavail * room.f_bsize - size)))

    yield tmp_path, leave
    subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)


@pytest.mark.parametrize("size", [0, 300_000])
def test_a_disk_that_fills_up_stops_in_one_line_and_the_run_resumes(undisturbed, small_disk, size):
    (disk, leave), more = small_disk, ["--set=train.save_every=3"]
    process = started(disk / "run", *more)
    wait_for(process, lambda: step_of(disk / "run") >= 8)
    leave(size)
    for again in (True, False) if size == 0 else (False,):
        code, err = ended(process)
        assert code == 2 and "Traceback" not in err, err
        last = err.splitlines()[-1]
        assert str(disk) in last and last.endswith("the same command resumes"), err
        if again:  # while there still is no room
            process = started(disk / "run", *more)
    (disk / "filler").unlink()
    assert ended(started(disk / "run", *more))[0] == 0
    assert left(disk / "run")[:3] == left(undisturbed)[:3]


def test_a_lost_machine_is_no_loss_where_checkpoints_go_to_a_bucket(undisturbed, tmp_path):
    pytest.importorskip("gcsfs", reason="requirements-gs.txt is not installed")
    inside = "bucket/a/b/top1/seed0/"
    with gcs.serve() as service:
        words = ("--checkpoints=gs://bucket/a/b/", "--set=train.save_every=10")
        where = service.settings()
        lost = started(tmp_path / "lost", *words, **where)
        wait_for(lost, lambda: f"{inside}10/commit_success.txt" in service.names(inside))
        lost.kill()
        lost.communicate()
        shutil.rmtree(tmp_path / "lost")
        code, err = ended(started(tmp_path / "other", *words, **where))
        assert code == 0, err
        for name in service.names(inside):  # fetched, they are like those of a folder
            file = tmp_path / "other/top1/seed0/checkpoints" / name.removeprefix(inside)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(service.objects[name][1])
    assert left(tmp_path / "other")[:3] == left(undisturbed)[:3]  # which saved at other steps


def test_the_second_run_in_a_folder_refuses(tmp_path):
    process = started(tmp_path, "--set=train.steps=100000")
    wait_for(process, lambda: step_of(tmp_path) >= 1)
    code, err = ended(started(tmp_path, "--set=train.steps=100000"))
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith(f"error: --workdir={tmp_path}: is in use by process {process.pid} on ")
    assert process.poll() is None
    process.kill()
    process.communicate()


def test_a_folder_that_cannot_be_written_to(tmp_path):
    if os.geteuid() == 0:
        pytest.skip("root writes everywhere")
    tmp_path.chmod(0o555)
    code, err = ended(started(tmp_path))
    tmp_path.chmod(0o755)
    assert (code, err) == (2, f"error: --workdir={tmp_path}: {tmp_path} cannot be written to\n")
