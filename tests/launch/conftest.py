"""Programs that stand in for those of a cloud: they write down what they are asked."""

import os
import shlex
import subprocess

import pytest

NAMES = ("gcloud", "kubectl", "docker", "gcluster", "sbatch", "srun", "scontrol", "sleep")


class Cloud:
    """A folder of stand-ins that comes first on PATH."""

    def __init__(self, folder):
        self.folder, self.log = folder, folder / "asked"
        for name in NAMES:
            self.answers(name, "")

    def answers(self, name, does):
        """What the program does beside being written down, in the language of the shell."""
        words = f'for word; do printf " %q" "$word"; done >> {self.log}; echo >> {self.log}'
        text = f"#!/bin/bash\nprintf {name} >> {self.log}\n{words}\n"
        (self.folder / name).write_text(f"{text}{does}\n")
        (self.folder / name).chmod(0o755)

    def states(self, name, look, *states):
        """The program answers each look with the next state, the last one for ever; "" fails."""
        (self.folder / "states").write_text("".join(f"{state}\n" for state in states))
        self.answers(
            name,
            f'case "$*" in *{look}*) now=$(head -n 1 {self.folder}/states)\n'
            f"[ $(wc -l < {self.folder}/states) -eq 1 ] || sed -i 1d {self.folder}/states\n"
            '[ -n "$now" ] || exit 1\necho "$now" ;; esac',
        )

    def runs(self, target, words):
        """The exit code, what it said, and the command lines that it asked for."""
        self.log.write_text("")
        self.folder.joinpath("job").write_text(target.file(words))
        path = f"{self.folder}:{os.environ['PATH']}"
        done = subprocess.run(
            ["bash", self.folder / "job"],
            env={**os.environ, "PATH": path, "SLURM_JOB_ID": "7", "HOME": str(self.folder)},
            cwd=self.folder, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        asked = [shlex.split(line) for line in self.log.read_text().splitlines()]
        return done.returncode, done.stdout + done.stderr, asked


@pytest.fixture
def cloud(tmp_path):
    """Nothing is there yet, and everything succeeds."""
    folder = tmp_path / "cloud"
    folder.mkdir()
    return Cloud(folder)
