"""python -m launch TARGET [--FIELD=VALUE]... [--dry-run] -- run STUDY --workdir=DIR --mesh=...

Starts `python -m experiments` with the words behind `--`, the same on every host. A dry run prints
the files and commands, and does nothing.
"""

import dataclasses
import os
import re
import shlex
import sys
from collections.abc import Sequence

from launch.cloud_tpu import QueuedTpu, TpuVm
from launch.here import Gpus, Local
from launch.kubernetes import ClusterToolkit, Gke
from launch.slurm import Slurm
from launch.targets import FILE, Target

TARGETS = {
    "tpu-vm": TpuVm,
    "queued": QueuedTpu,
    "gke": Gke,
    "cluster-toolkit": ClusterToolkit,
    "slurm": Slurm,
    "gpus": Gpus,
    "local": Local,
}


def usage() -> str:
    """What --help prints."""
    lines = [__doc__.strip(), "", "targets, and their fields:"]
    for name, target in TARGETS.items():
        own = [
            f"--{f.name}={'...' if f.name in target.required else f.default}"
            for f in dataclasses.fields(target)
            if f.name != "python"
        ]
        lines += [f"  {name:<16} {target.summary}", f"  {'':<16} {' '.join(own)}"]
    return "\n".join(lines)


def parse(argv: Sequence[str]) -> tuple[Target, bool, list[str]]:
    """The target, whether it is a dry run, and the words behind `--`; raises ValueError."""
    end = list(argv).index("--") if "--" in argv else len(argv)
    own, words = list(argv[:end]), list(argv[end + 1 :])
    if not own or own[0] not in TARGETS:
        raise ValueError(f"{' '.join(own[:1]) or 'TARGET'}: must be one of {', '.join(TARGETS)}")
    if not words or words[0] != "run":
        raise ValueError("-- run STUDY --workdir=DIR ...: is missing behind the target's flags")
    target, values, dry = TARGETS[own[0]], {}, False
    known = {f.name: type(f.default) for f in dataclasses.fields(target)}
    for word in own[1:]:
        name, _, value = word.removeprefix("--").partition("=")
        if name == "dry-run":
            dry = True
        elif name not in known or not word.startswith("--"):
            raise ValueError(f"{word}: {own[0]} knows --dry-run, --{', --'.join(known)}")
        else:
            values[name] = _typed(word, value, known[name])
    made = target(**values)
    made.check()
    return made, dry, words


def _typed(word: str, value: str, kind: type):
    if kind is bool and value in ("", "true", "false"):
        return value != "false"
    if kind is int and re.fullmatch("[0-9]{1,5}", value, re.ASCII):
        return int(value)
    if kind is str and value:
        return value
    wanted = {bool: "true or false", int: "a number", str: "a word"}[kind]
    raise ValueError(f"{word}: must be {wanted}")


def main(argv: Sequence[str]) -> int:
    """Runs one command line, without the program's name; returns the exit code."""
    if any(word in ("-h", "--help") for word in argv):
        print(usage())
        return 0
    try:
        target, dry, words = parse(argv)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if not dry:
        return target.start(words)
    text = target.file(words)
    if text:
        print(f"# the file that the command names:\n{text}")
    for command in target.commands(words):
        print(shlex.join("job" if word == FILE else word for word in command))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except BrokenPipeError:  # who read what is printed has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
