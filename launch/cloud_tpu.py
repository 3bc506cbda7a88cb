"""Cloud TPU VMs, one by one or from the queue: create, copy this clone to every host, run there."""

import dataclasses
import re
import shlex
from typing import ClassVar

from launch.targets import FILE, HEAD, Target, copied

# How an accelerator begins -> the software of its hosts.
VERSIONS = {
    "v2": "tpu-ubuntu2204-base",
    "v3": "tpu-ubuntu2204-base",
    "v4": "tpu-ubuntu2204-base",
    "v5litepod": "v2-alpha-tpuv5-lite",
    "v5p": "v2-alpha-tpuv5",
    "v6e": "v2-alpha-tpuv6e",
}


@dataclasses.dataclass(frozen=True)
class TpuVm(Target):
    """Runs again, whatever is there: a machine is made where there is none, or started.

    On every host, a run that the system stopped or that crashed (`crashes` times at most) is
    started again. A run that goes on is left alone.
    """

    summary: ClassVar[str] = "Cloud TPU VM: create if absent, copy, install, run on every host"
    least: ClassVar[dict[str, int]] = {"crashes": 0}
    python: str = ".venv/bin/python"
    name: str = "moe"
    zone: str = "us-central1-a"
    project: str = ""  # that of gcloud's own configuration
    accelerator: str = "v5litepod-16"
    version: str = ""  # the one of the accelerator
    spot: bool = False
    crashes: int = 3

    def check(self):
        """Knows the accelerators of Cloud TPU."""
        super().check()
        kind = self.accelerator.partition("-")[0]
        if kind.startswith("tpu7x"):
            raise ValueError(f"--accelerator={self.accelerator}: TPU7x is reached by gke only")
        if not re.fullmatch(r"[a-z0-9]+-[1-9][0-9]{0,4}", self.accelerator) or kind not in VERSIONS:
            known = ", ".join(f"{each}-N" for each in VERSIONS)
            raise ValueError(f"--accelerator={self.accelerator}: must be one of {known}")

    @property
    def software(self) -> str:
        """The version that was asked for, or the accelerator's."""
        return self.version or VERSIONS[self.accelerator.partition("-")[0]]

    def create(self) -> str:
        """Lines of a shell script after which there is a machine."""
        words = ["create", self.name, f"--accelerator-type={self.accelerator}"]
        create = self.gcloud("tpu-vm", *words, f"--version={self.software}", *self.spare())
        look = self.gcloud("tpu-vm", "describe", self.name, "--format=value(state)")
        return f"""\
state() {{ {look} 2>/dev/null || true; }}
case "$(state)" in
    PREEMPTED|TERMINATED) {self.gcloud("tpu-vm", "delete", self.name, "--quiet")}; {create} ;;
    STOPPED) {self.gcloud("tpu-vm", "start", self.name)} ;;
    "") {create} ;;
esac
"""

    def file(self, words):
        """One ssh command runs on all hosts at the same time, and leaves the run behind."""
        own = self.joined(words)[3:]
        start = shlex.join(["bash", "launch/host.sh", "tpu gs", str(self.crashes), *own])
        pack = f"{self.name}.tar.gz"
        command = (
            "if grep -qs launch.again /proc/$(cat moe/moe.pid 2>/dev/null)/cmdline; then "
            f'echo "runs already: moe/run.log"; else mkdir -p moe && tar -xzf {pack} -C moe && '
            f"cd moe && {start}; fi"
        )
        ssh = self.gcloud("tpu-vm", "ssh", self.name, "--worker=all", f"--command={command}")
        copy = f'"$folder/{pack}" {self.name}: --worker=all'
        log = self.gcloud("tpu-vm", "ssh", self.name, "--worker=0", "--command=tail -f moe/run.log")
        return (
            f"{HEAD}{copied(f'$folder/{pack}')}{self.create()}"
            f"{self.gcloud('tpu-vm', 'scp')} {copy}\n{ssh}\n"
            f"echo {shlex.quote(f'to follow: {log}')}\n"
        )

    def commands(self, words):
        """Runs the script."""
        return [["bash", FILE]]

    def gcloud(self, *words: str) -> str:
        """A command of gcloud's, quoted for a shell."""
        where = [f"--zone={self.zone}"] + [f"--project={self.project}"] * bool(self.project)
        return shlex.join(["gcloud", "compute", "tpus", *words, *where])

    def spare(self) -> list[str]:
        """The flag that asks for a machine that may be taken away."""
        return ["--spot"] * self.spot


@dataclasses.dataclass(frozen=True)
class QueuedTpu(TpuVm):
    """The same from the queue of Cloud TPU: a request that failed is made anew.

    One that fails while it waits ends the recipe.
    """

    summary: ClassVar[str] = "the same through queued resources"

    def create(self):
        """Queues up where there is no request, then waits until the machine is there."""
        words = ["create", self.name, f"--node-id={self.name}"]
        words += [f"--accelerator-type={self.accelerator}", f"--runtime-version={self.software}"]
        ask = self.gcloud("queued-resources", *words, *self.spare())
        look = self.gcloud("queued-resources", "describe", self.name, "--format=value(state.state)")
        drop = self.gcloud("queued-resources", "delete", self.name, "--force", "--quiet")
        return f"""\
state() {{ {look} 2>/dev/null || true; }}
case "$(state)" in *FAILED*|*SUSPEND*) {drop} ;; esac
[ -n "$(state)" ] || {ask}
absent=0
while now=$(state); [[ $now != *ACTIVE* ]]; do
    [ -n "$now" ] && absent=0 || absent=$((absent + 1))
    case "$now" in *FAILED*|*SUSPEND*) absent=9 ;; esac
    if [ $absent -ge 9 ]; then
        echo "error: the request {self.name} is ${{now:-gone}}; the same command makes it anew" >&2
        exit 1
    fi
    sleep 30
done
"""
