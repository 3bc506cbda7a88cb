"""Where to train, each a dataclass whose fields are flags: what to write and what to run there.

Commands are those of Google Cloud's, Kubernetes' and SLURM's documentation.
"""

import dataclasses
import json
import math
import pathlib
import shlex
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import ClassVar

INSTALL = "pip install -r requirements.txt -r requirements-tpu.txt -r requirements-gs.txt"
FILE = "{file}"  # in a command: where the target's file was written
STOPPED = 75  # exit code of a run that the system stopped after it saved: to be started again


@dataclasses.dataclass(frozen=True)
class Target:
    """Where to train; its fields are the flags."""

    summary: ClassVar[str]
    python: str = "python3"

    def words(self, words: Sequence[str]) -> list[str]:
        """The command of one process."""
        return [self.python, "-m", "experiments", *words]

    def joined(self, words: Sequence[str]) -> list[str]:
        """The command of each of several processes that a cluster introduces to each other."""
        return self.words([*words, "--coordinator=auto"])

    def file(self, words: Sequence[str]) -> str:
        """What is written before the commands run; "" is nothing."""
        del words
        return ""

    def commands(self, words: Sequence[str]) -> list[list[str]]:
        """What runs, one after the other."""
        raise NotImplementedError

    def start(self, words: Sequence[str]) -> int:
        """Runs everything; returns the exit code of the first command that fails, or 0."""
        with tempfile.TemporaryDirectory() as folder:
            job = pathlib.Path(folder) / "job"
            job.write_text(self.file(words), encoding="utf-8")
            for command in self.commands(words):
                started = subprocess.Popen([str(job) if w == FILE else w for w in command])
                if code := _ended(started):
                    return code
        return 0


@dataclasses.dataclass(frozen=True)
class TpuVm(Target):
    """Cloud TPU VMs: create, copy this folder to every host, install, run."""

    summary: ClassVar[str] = "Cloud TPU VM: create, copy, install, run on every host"
    name: str = "moe"
    zone: str = "us-central1-a"
    accelerator: str = "v5litepod-16"
    version: str = "v2-alpha-tpuv5-lite"
    spot: bool = False

    def create(self) -> list[list[str]]:
        """Asks for the machine."""
        words = ["create", self.name, f"--accelerator-type={self.accelerator}"]
        return [self._gcloud("tpu-vm", *words, f"--version={self.version}", *self._spot())]

    def commands(self, words):
        """One ssh command runs on all hosts at the same time."""
        line = f"cd moe && {INSTALL} && {shlex.join(self.joined(words))}"
        copy = ["scp", "--recurse", ".", f"{self.name}:moe", "--worker=all"]
        return [
            *self.create(),
            self._gcloud("tpu-vm", *copy),
            self._gcloud("tpu-vm", "ssh", self.name, "--worker=all", f"--command={line}"),
        ]

    def _gcloud(self, *words: str) -> list[str]:
        return ["gcloud", "compute", "tpus", *words, f"--zone={self.zone}"]

    def _spot(self) -> list[str]:
        return ["--spot"] * self.spot


@dataclasses.dataclass(frozen=True)
class QueuedTpu(TpuVm):
    """The same, from the queue of Cloud TPU, which the first command waits for."""

    summary: ClassVar[str] = "the same through queued resources"

    def create(self):
        """Queues up, then waits until the machine is there."""
        words = ["create", self.name, f"--node-id={self.name}"]
        words += [f"--accelerator-type={self.accelerator}", f"--runtime-version={self.version}"]
        ask = self._gcloud("queued-resources", *words, *self._spot())
        state = self._gcloud("queued-resources", "describe", self.name, "--format=value(state)")
        wait = f"until {shlex.join(state)} | grep -q ACTIVE; do sleep 30; done"
        return [ask, ["bash", "-c", wait]]


@dataclasses.dataclass(frozen=True)
class Gke(Target):
    """Google Kubernetes Engine: a JobSet, one pod a host; the image holds this folder."""

    summary: ClassVar[str] = "Google Kubernetes Engine: a JobSet manifest and kubectl"
    name: str = "moe"
    image: str = "IMAGE"
    accelerator: str = "tpu-v5-lite-podslice"
    topology: str = "4x4"
    chips_per_host: int = 4
    restarts: int = 10

    def file(self, words):
        """The manifest, as JSON."""
        hosts = math.prod(int(n) for n in self.topology.split("x")) // self.chips_per_host
        container = {
            "name": "train",
            "image": self.image,
            "command": self.joined(words),
            "resources": {"limits": {"google.com/tpu": self.chips_per_host}},
        }
        selector = {
            "cloud.google.com/gke-tpu-accelerator": self.accelerator,
            "cloud.google.com/gke-tpu-topology": self.topology,
        }
        pod = {"restartPolicy": "Never", "nodeSelector": selector, "containers": [container]}
        job = {"parallelism": hosts, "completions": hosts, "backoffLimit": 0}
        job["template"] = {"spec": pod}
        workers = {"name": "workers", "replicas": 1, "template": {"spec": job}}
        manifest = {
            "apiVersion": "jobset.x-k8s.io/v1alpha2",
            "kind": "JobSet",
            "metadata": {"name": self.name},
            "spec": {
                "failurePolicy": {"maxRestarts": self.restarts},
                "replicatedJobs": [workers],
            },
        }
        return json.dumps(manifest, indent=2) + "\n"

    def commands(self, words):
        """Applies the manifest."""
        return [["kubectl", "apply", "-f", FILE]]


@dataclasses.dataclass(frozen=True)
class ClusterToolkit(Target):
    """Google's Cluster Toolkit, which took the place of xpk."""

    summary: ClassVar[str] = "Google Cluster Toolkit: gcluster job submit"
    name: str = "moe"
    image: str = "IMAGE"
    compute_type: str = "v6e-16"

    def commands(self, words):
        """Submits the job."""
        ask = [f"--name={self.name}", f"--image={self.image}"]
        ask.append(f"--compute-type={self.compute_type}")
        return [["gcluster", "job", "submit", *ask, f"--command={shlex.join(self.joined(words))}"]]


@dataclasses.dataclass(frozen=True)
class Slurm(Target):
    """SLURM: one process per GPU, on every node.

    A job that is preempted, or that saved when its time was nearly up, is queued again and resumes.
    """

    summary: ClassVar[str] = "SLURM: an sbatch script, one process a GPU"
    name: str = "moe"
    nodes: int = 2
    gpus: int = 8
    time: str = "24:00:00"
    partition: str = ""

    def file(self, words):
        """The batch script."""
        options = [f"--job-name={self.name}", f"--nodes={self.nodes}", f"--time={self.time}"]
        options += [f"--ntasks-per-node={self.gpus}", f"--gpus-per-node={self.gpus}"]
        options += ["--requeue", "--signal=TERM@60"]
        options += [f"--partition={self.partition}"] * bool(self.partition)
        head = "".join(f"#SBATCH {option}\n" for option in options)
        again = f'[ $code -eq {STOPPED} ] && scontrol requeue "$SLURM_JOB_ID"'
        run = f"srun {shlex.join(self.joined(words))}\ncode=$?\n{again}\nexit $code\n"
        return f"#!/bin/bash\n{head}{run}"

    def commands(self, words):
        """Submits the script."""
        return [["sbatch", FILE]]


@dataclasses.dataclass(frozen=True)
class Gpus(Target):
    """Several GPUs of this host: one process sees them all."""

    summary: ClassVar[str] = "several GPUs of this host, in one process"
    gpus: int = 8
    python: str = sys.executable

    def commands(self, words):
        """Shows the process that many GPUs."""
        shown = ",".join(map(str, range(self.gpus)))
        return [["env", f"CUDA_VISIBLE_DEVICES={shown}", *self.words(words)]]


@dataclasses.dataclass(frozen=True)
class Local(Target):
    """Several processes on this machine, on CPU: a rehearsal of several hosts."""

    summary: ClassVar[str] = "several processes on this machine, on CPU"
    processes: int = 2
    port: int = 0  # 0 is a free one
    python: str = sys.executable

    def commands(self, words):
        """All of them, which run at the same time."""
        port = self.port or _free_port()
        together = [f"--coordinator=127.0.0.1:{port}", f"--num_processes={self.processes}"]
        return [
            ["env", "JAX_PLATFORMS=cpu", *self.words([*words, *together, f"--process_id={i}"])]
            for i in range(self.processes)
        ]

    def start(self, words):
        """Waits for all; the first that fails ends the others, one that was stopped does not."""
        running = [subprocess.Popen(command) for command in self.commands(words)]
        try:
            while True:
                codes = [process.poll() for process in running]
                failed = [code for code in codes if code not in (None, 0, STOPPED)]
                if failed or None not in codes:
                    return failed[0] if failed else max(codes)
                time.sleep(0.2)
        except KeyboardInterrupt:  # the processes hear it too, and save
            return max(_ended(process) for process in running)
        finally:
            for process in running:
                process.terminate()
            for process in running:
                process.wait()


TARGETS = {
    "tpu-vm": TpuVm,
    "queued": QueuedTpu,
    "gke": Gke,
    "cluster-toolkit": ClusterToolkit,
    "slurm": Slurm,
    "gpus": Gpus,
    "local": Local,
}


def _ended(process: subprocess.Popen) -> int:
    """The exit code of a process; a first Ctrl-C, which it hears too, is left to it."""
    try:
        return process.wait()
    except KeyboardInterrupt:
        return process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
