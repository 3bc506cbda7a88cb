"""Where to train, each a dataclass whose fields are flags: what to write and what to run there.

Commands are those of Google Cloud's, Kubernetes' and SLURM's documentation.
"""

import dataclasses
import pathlib
import re
import shlex
import subprocess
import tempfile
from collections.abc import Sequence
from typing import ClassVar

ROOT = pathlib.Path(__file__).parents[1]  # of the clone
FILE = "{file}"  # in a command: where the target's file was written
STOPPED = 75  # exit code of a run that the system stopped after it saved: to be started again
MISTAKE = 2  # exit code of what no second try helps

# A machine or a job goes by such a name.
NAME = re.compile("[a-z]([-a-z0-9]{0,38}[a-z0-9])?")


@dataclasses.dataclass(frozen=True)
class Target:
    """Where to train; its fields are the flags.

    Attributes:
      summary: one line for --help.
      required: fields that have no default.
      least: smallest value of a number, where that is not 1.
    """

    summary: ClassVar[str]
    required: ClassVar[tuple[str, ...]] = ()
    least: ClassVar[dict[str, int]] = {}
    python: str = "python3"

    def check(self) -> None:
        """Raises ValueError, one line, for fields that are missing or impossible."""
        for name in self.required:
            if not getattr(self, name):
                needs = " ".join(f"--{each}=..." for each in self.required)
                raise ValueError(f"--{name}: is missing; this target needs {needs}")
        for field in dataclasses.fields(self):
            name, value = field.name, getattr(self, field.name)
            least = self.least.get(name, 1)
            if isinstance(value, str) and name != "python" and re.search(r"\s", value):
                raise ValueError(f"--{name}={value!r}: must be one word")
            if type(value) is int and value < least:
                raise ValueError(f"--{name}={value}: must be >= {least}")
        name = getattr(self, "name", "moe")
        if not NAME.fullmatch(name):
            raise ValueError(f"--name={name}: must be up to 40 of a-z, 0-9 and -, from a letter on")

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
                if code := ended(started):
                    return code
        return 0


def ended(process: subprocess.Popen) -> int:
    """The exit code of a process; a first Ctrl-C, which it hears too, is left to it."""
    try:
        return process.wait()
    except KeyboardInterrupt:
        return process.wait()


def copied(path: str) -> str:
    """Lines of a shell script that pack the tracked files of the clone, as they are now.

    Beside them COMMIT, which says what they are where there is no repository to ask.
    """
    return f"""\
cd {shlex.quote(str(ROOT))}
git describe --always --dirty --abbrev=12 --exclude='*' > "$folder/COMMIT"
changed=$(git stash create)  # a commit of what tracked files changed; "" where none did
git archive --format=tar.gz --add-file="$folder/COMMIT" --output="{path}" "${{changed:-HEAD}}"
"""


HEAD = """\
#!/usr/bin/env bash
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"""
