"""Launch recipes: a dry run prints the exact commands; local processes really train."""

import json
import os
import pathlib
import shlex
import signal
import subprocess
import sys
import time

import pytest

from launch import __main__ as launch
from launch import targets

ROOT = pathlib.Path(__file__).parents[1]
WORDS = ["run", "dense_topk_hash/top2", "--workdir=/mnt/bucket/a b", "--mesh=data:4,expert:4"]
RUN = "-m experiments run dense_topk_hash/top2 '--workdir=/mnt/bucket/a b' --mesh=data:4,expert:4"
JOINED = f"python3 {RUN} --coordinator=auto"


def dry(capsys, *words):
    """What a dry run prints, line by line."""
    assert launch.main([*words, "--dry-run", "--", *WORDS]) == 0
    return capsys.readouterr().out.splitlines()


def test_tpu_vm(capsys):
    lines = dry(capsys, "tpu-vm", "--name=t", "--zone=z", "--spot")
    assert lines[:2] == [
        "gcloud compute tpus tpu-vm create t --accelerator-type=v5litepod-16 "
        "--version=v2-alpha-tpuv5-lite --spot --zone=z",
        "gcloud compute tpus tpu-vm scp --recurse . t:moe --worker=all --zone=z",
    ]
    *head, command, zone = shlex.split(lines[2])
    assert head == ["gcloud", "compute", "tpus", "tpu-vm", "ssh", "t", "--worker=all"]
    assert command == f"--command=cd moe && {targets.INSTALL} && {JOINED}" and zone == "--zone=z"


def test_queued_resources(capsys):
    ask, wait, *rest = dry(capsys, "queued", "--name=t", "--accelerator=v5litepod-64")
    assert ask == (
        "gcloud compute tpus queued-resources create t --node-id=t --accelerator-type=v5litepod-64 "
        "--runtime-version=v2-alpha-tpuv5-lite --zone=us-central1-a"
    )
    assert shlex.split(wait)[:2] == ["bash", "-c"] and "grep -q ACTIVE" in wait
    assert [line.split()[4] for line in rest] == ["scp", "ssh"]


def test_a_jobset_has_a_pod_a_host(capsys):
    lines = dry(capsys, "gke", "--image=gcr.io/p/moe", "--topology=4x8", "--chips_per_host=4")
    assert lines[-1] == "kubectl apply -f job"
    manifest = json.loads("\n".join(lines[1:-1]))
    assert manifest["kind"] == "JobSet" and manifest["apiVersion"] == "jobset.x-k8s.io/v1alpha2"
    job = manifest["spec"]["replicatedJobs"][0]["template"]["spec"]
    assert job["parallelism"] == job["completions"] == 8  # 32 chips, 4 a host
    container = job["template"]["spec"]["containers"][0]
    assert shlex.join(container["command"]) == JOINED
    assert container["resources"]["limits"] == {"google.com/tpu": 4}


def test_cluster_toolkit(capsys):
    assert [shlex.split(line) for line in dry(capsys, "cluster-toolkit", "--image=i")] == [
        ["gcluster", "job", "submit", "--name=moe", "--image=i", "--compute-type=v6e-16",
         f"--command={JOINED}"],
    ]  # fmt: skip


def test_slurm(capsys):
    lines = dry(capsys, "slurm", "--nodes=4", "--gpus=2", "--partition=p")
    assert lines[1] == "#!/bin/bash" and lines[-1] == "sbatch job"
    options = [line.removeprefix("#SBATCH ") for line in lines if line.startswith("#SBATCH")]
    assert {"--nodes=4", "--ntasks-per-node=2", "--gpus-per-node=2", "--partition=p"} < set(options)
    assert f"srun {JOINED}" in lines


@pytest.mark.parametrize(("code", "asked"), [(75, "requeue 7\n"), (0, ""), (2, ""), (1, "")])
def test_slurm_queues_again_what_the_system_stopped(code, asked, tmp_path):
    """The batch script itself, where `srun` and `scontrol` are stand-ins."""
    for name, does in {"srun": f"exit {code}", "scontrol": f'echo "$@" > {tmp_path}/asked'}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{does}\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "asked").write_text("")
    (tmp_path / "job").write_text(targets.Slurm().file(WORDS))
    there = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "7"}
    assert subprocess.run(["bash", tmp_path / "job"], env=there).returncode == code
    assert (tmp_path / "asked").read_text() == asked


def test_one_host(capsys):
    (line,) = dry(capsys, "gpus", "--gpus=4", "--python=py")
    assert line == f"env CUDA_VISIBLE_DEVICES=0,1,2,3 py {RUN}"
    assert dry(capsys, "local", "--processes=2", "--port=9000", "--python=py") == [
        f"env JAX_PLATFORMS=cpu py {RUN} --coordinator=127.0.0.1:9000 --num_processes=2 "
        f"--process_id={i}"
        for i in range(2)
    ]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["moon", "--", "run"], "moon: must be one of tpu-vm, queued, gke, cluster-toolkit, slur"),
        ([], "TARGET: must be one of tpu-vm"),
        (["local"], "-- run STUDY --workdir=DIR ...: is missing behind the target's flags"),
        (["local", "--", "show"], "-- run STUDY --workdir=DIR ...: is missing"),
        (["local", "--processes=two", "--", "run"], "--processes=two: must be a number"),
        (["local", "--nodes=2", "--", "run"], "--nodes=2: local knows --dry-run, --python, --proc"),
        (["gke", "--name=", "--", "run"], "--name=: must be a word"),
        (["tpu-vm", "--spot=maybe", "--", "run"], "--spot=maybe: must be true or false"),
    ],
)
def test_a_mistake_is_one_line(words, line, capsys):
    assert launch.main(words) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {line}") and said.count("\n") == 1


def test_help_names_every_target(capsys):
    assert launch.main(["--help"]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in launch.TARGETS)


def test_the_first_local_process_that_fails_ends_the_others(tmp_path):
    # Stands in for Python: process 1 fails at once, process 0 would sleep for a minute.
    program = tmp_path / "python"
    program.write_text('#!/bin/sh\ncase "$*" in *process_id=1*) exit 3;; esac\nexec sleep 60\n')
    program.chmod(0o755)
    assert targets.Local(processes=2, python=str(program)).start(WORDS) == 3


def test_a_local_process_that_was_stopped_leaves_the_others_time_to_save(tmp_path):
    # Process 1 has saved at once, process 0 needs a second longer; a signal would end it with 143.
    program = tmp_path / "python"
    program.write_text('#!/bin/sh\ncase "$*" in *process_id=1*) exit 75;; esac\nsleep 1; exit 75\n')
    program.chmod(0o755)
    began = time.monotonic()
    assert targets.Local(processes=2, python=str(program)).start(WORDS) == targets.STOPPED
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
    command = pathlib.Path(__file__).parent / "fakes/command.py"
    python = tmp_path / "python"  # `python -m experiments WORDS` on the synthetic data set
    python.write_text(f'#!/bin/sh\nshift 2\nexec "{sys.executable}" "{command}" "$@"\n')
    python.chmod(0o755)
    fields = ("train.steps=2", "data.sequence_length=16", "model.model_width=32")
    words = ["run", "dense_topk_hash/top1", "--seeds=0", f"--workdir={tmp_path / 'a b'}"]
    words += ["--mesh=data:2", *(f"--set={field}" for field in fields)]
    assert launch.main(["local", "--processes=2", f"--python={python}", "--", *words]) == 0
    result = json.loads((tmp_path / "a b/top1/seed0/result.json").read_text())
    assert result["environment"]["processes"] == 2 and result["environment"]["mesh"] == "data:2"
