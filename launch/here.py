"""This machine: several GPUs in one process, or several processes on CPU.

They run in the foreground: what stops them is told to whoever started them, by the exit code.
"""

import dataclasses
import socket
import subprocess
import sys
import time
from typing import ClassVar

from launch.targets import STOPPED, Target, ended


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
    least: ClassVar[dict[str, int]] = {"port": 0}
    processes: int = 2
    port: int = 0  # 0 is a free one
    python: str = sys.executable

    def check(self):
        """Ports end at 65535."""
        super().check()
        if self.port > 65535:
            raise ValueError(f"--port={self.port}: must be <= 65535")

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
            return max(ended(process) for process in running)
        finally:
            for process in running:
                process.terminate()
            for process in running:
                process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
