"""SLURM: one process per GPU, on every node."""

import dataclasses
import re
import shlex
import sys
from typing import ClassVar

from launch.targets import FILE, MISTAKE, ROOT, STOPPED, Target


@dataclasses.dataclass(frozen=True)
class Slurm(Target):
    """A job of this name at a time, in this clone and with the Python that submits it.

    A job that is preempted, or that saved when its time was nearly up, is queued again and resumes;
    one that crashed, `crashes` times at most.
    """

    summary: ClassVar[str] = "SLURM: an sbatch script, one process a GPU"
    least: ClassVar[dict[str, int]] = {"crashes": 0}
    python: str = sys.executable
    name: str = "moe"
    nodes: int = 2
    gpus: int = 8
    time: str = "24:00:00"
    partition: str = ""
    account: str = ""
    crashes: int = 3
    grace: int = 120  # seconds before the end of its time at which a run is told to save

    def check(self):
        """Times are as SLURM writes them."""
        super().check()
        if not re.fullmatch(r"[0-9]+(-[0-9]+(:[0-9]+){0,2}|(:[0-9]+){0,2})", self.time, re.ASCII):
            raise ValueError(f"--time={self.time}: must be as in 90, 24:00:00 or 2-12")

    def file(self, words):
        """The batch script."""
        options = [f"--job-name={self.name}", f"--nodes={self.nodes}", f"--time={self.time}"]
        options += [f"--ntasks-per-node={self.gpus}", f"--gpus-per-node={self.gpus}"]
        options += [
            f"--chdir={shlex.quote(str(ROOT))}",
            "--requeue",
            "--open-mode=append",
            "--dependency=singleton",
        ]
        options += [f"--signal=TERM@{self.grace}"]
        options += [f"--partition={self.partition}"] * bool(self.partition)
        options += [f"--account={self.account}"] * bool(self.account)
        head = "".join(f"#SBATCH {option}\n" for option in options)
        return f"""\
#!/bin/bash
{head}srun --kill-on-bad-exit=0 {shlex.join(self.joined(words))}
code=$?
crashes=slurm-$SLURM_JOB_ID.crashes  # a line for each
case $code in
    0|{MISTAKE}) exit $code ;;
    {STOPPED}) ;;
    *) echo $code >> "$crashes"; [ $(wc -l < "$crashes") -le {self.crashes} ] || exit $code ;;
esac
scontrol requeue "$SLURM_JOB_ID"
exit $code
"""

    def commands(self, words):
        """Submits the script."""
        return [["sbatch", FILE]]
