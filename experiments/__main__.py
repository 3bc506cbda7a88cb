"""The command: python -m experiments list | show | run | report | diff | bench.

Every mistake is one line on stderr and exit code 2. Nothing heavy is imported before it is needed.
"""

import pathlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from absl import flags

from experiments import commands
from experiments.interrupts import Interrupted
from experiments.mistakes import is_mistake, line
from experiments.request import known_size, parse_name, request, watch
from moe.registry import no_such

_SIZE = flags.DEFINE_string("size", "tiny", "which size of the study")
_ARMS = flags.DEFINE_list("arms", None, "run only these arms, separated by commas")
_SEEDS = flags.DEFINE_list("seeds", None, "run these seeds instead of the study's own")
_SET = flags.DEFINE_multi_string("set", [], "change a field, as --set train.steps=200; repeatable")
_WORKDIR = flags.DEFINE_string("workdir", None, "where a run keeps its files; it resumes them")
_JOBS = flags.DEFINE_integer(
    "jobs", 0, "runs at the same time, each a process; 0 decides by itself", lower_bound=0
)
_SHAPE = flags.DEFINE_multi_string("shape", [], "of `bench layer`: T,D,F,E,k; repeatable")
_SKEWS = flags.DEFINE_list("skews", ["uniform"], "of `bench layer`: uniform, zipf, one, empty")
_PROFILE = flags.DEFINE_string("profile", None, "first and last step of a profile, as 10:12")
_WANDB = flags.DEFINE_string("wandb", None, "the Weights & Biases project that gets the metrics")
_OURS = (_SIZE, _ARMS, _SEEDS, _SET, _WORKDIR, _JOBS, _PROFILE, _WANDB, _SHAPE, _SKEWS)


@dataclass(frozen=True)
class Command:
    """One command: what it does, the words it takes ([optional]), and the flags it reads."""

    act: Callable[[Sequence[str]], None]
    words: str
    summary: str
    flags: tuple[str, ...] = ()

    def takes(self, count: int) -> bool:
        """Whether that many words fit."""
        words = self.words.split()
        return sum(not word.startswith("[") for word in words) <= count <= len(words)


def _list(words: Sequence[str]) -> None:
    print(commands.listing(*words))


def _show(words: Sequence[str]) -> None:
    study, arms = parse_name(words[0])
    if arms is None:
        print(commands.study_table(study, _SIZE.value, _SET.value))
    else:
        print(commands.arm_sheet(study, arms[0], _SIZE.value, _SET.value))


def _run(words: Sequence[str]) -> None:
    study, arms = parse_name(words[0])
    if arms is not None and _ARMS.value is not None:
        raise ValueError(f"--arms={','.join(_ARMS.value)}: {words[0]} names an arm already")
    asked = request(
        study, arms or _ARMS.value, _SIZE.value, _SEEDS.value, _SET.value, _WORKDIR.value
    )
    watched = watch(_PROFILE.value, _WANDB.value, asked)
    from experiments import run

    run.run(*asked, jobs=_JOBS.value, **watched)
    _publish(asked.workdir)


def _report(words: Sequence[str]) -> None:
    _publish(commands.study_directory(words[0]))


def _publish(directory: pathlib.Path) -> None:
    """Writes the report of a study, prints its table and says where the page is."""
    from experiments import report

    page = report.report(directory)
    print(report.table(directory))
    print(f"page: {page}")


def _diff(words: Sequence[str]) -> None:
    print(commands.difference(words[0], words[1], _SIZE.value))


def _bench(words: Sequence[str]) -> None:
    valid = {"layer": ("shape", "skews", "workdir"), "router": (), "step": ("size",)}
    if words[0] not in valid:
        raise ValueError(f"bench {words[0]}: {no_such('benchmark', words[0], valid)}")
    taken = valid[words[0]]
    for flag in (_SIZE, _SHAPE, _SKEWS, _WORKDIR):
        if flag.present and flag.name not in taken:
            known = ", ".join(f"--{name}" for name in taken) or "none"
            raise ValueError(f"--{flag.name}: is no flag of bench {words[0]} (valid: {known})")
    known_size(_SIZE.value)
    from experiments import bench, bench_layer

    if words[0] == "layer":
        shapes = [bench_layer.shape(text) for text in _SHAPE.value] or bench_layer.SHAPES
        for skew in _SKEWS.value:
            if skew not in bench_layer.SKEWS:
                raise ValueError(f"--skews={skew}: {no_such('skew', skew, bench_layer.SKEWS)}")
        directory = pathlib.Path(_WORKDIR.value) if _WORKDIR.value else None
        bench_layer.layer(shapes, _SKEWS.value, directory=directory)
    elif words[0] == "router":
        bench.router()
    else:
        bench.step(_SIZE.value)


COMMANDS = {
    "list": Command(
        _list, "[PATTERN]", "studies, arms and parts; `list routers` says more of each router"
    ),
    "show": Command(
        _show,
        "STUDY[/ARM]",
        "every field, parameters, FLOPs per token and memory",
        ("size", "set"),
    ),
    "run": Command(
        _run,
        "STUDY[/ARM]",
        "train (or resume) the arms, print the table, write the page",
        ("size", "arms", "seeds", "set", "workdir", "jobs", "profile", "wandb"),
    ),
    "report": Command(_report, "DIR", "write the table, figures and page of a study again"),
    "diff": Command(
        _diff, "A B", "the fields that differ; each a STUDY/ARM or a run's folder", ("size",)
    ),
    "bench": Command(
        _bench,
        "step|router|layer",
        "time training steps, routers, or dispatchers against the machine's peak",
        ("size", "shape", "skews", "workdir"),
    ),
}

_EXAMPLES = """\
examples:
  python -m experiments list hash
  python -m experiments list routers
  python -m experiments show dense_topk_hash/top2 --set model.moe.router.k=4
  python -m experiments run dense_topk_hash --workdir=runs/first --seeds=0,1
  python -m experiments diff dense_topk_hash/top1 dense_topk_hash/hash_random"""


def usage() -> str:
    """What --help prints."""
    lines = ["usage: python -m experiments COMMAND [WORD]... [--FLAG=VALUE]...", "", "commands:"]
    for name, command in COMMANDS.items():
        lines.append(f"  {name + ' ' + command.words:<18} {command.summary}")
    lines += ["", "flags:"]
    for flag in _OURS:
        users = ", ".join(name for name, command in COMMANDS.items() if flag.name in command.flags)
        value = "PATH=VALUE" if flag is _SET else flag.name.upper()
        default = "" if flag.default in (None, []) else f" [{flag.default}]"
        lines.append(f"  --{flag.name + '=' + value:<18} {_help(flag)}{default} ({users})")
    return "\n".join([*lines, "", _EXAMPLES])


def _help(flag: flags.FlagHolder) -> str:
    """The help of a flag, without what absl appends to it."""
    return flags.FLAGS[flag.name].help.split("\n")[0].rstrip(";")


def parse(argv: Sequence[str]) -> list[str]:
    """Sets the flags and returns the words; raises ValueError, one line, for a bad flag."""
    try:
        return flags.FLAGS(list(argv))[1:]
    except flags.UnrecognizedFlagError as error:
        rule = no_such("flag", error.flagname, [flag.name for flag in _OURS])
        raise ValueError(f"--{error.flagname}: {rule}") from None
    except flags.IllegalFlagValueError as error:
        given = str(error).split(": ")[0].removeprefix("flag ")
        parser = flags.FLAGS[given.removeprefix("--").split("=")[0]].parser
        raise ValueError(f"{given}: must be {parser.syntactic_help}") from None
    except flags.Error as error:
        raise ValueError(str(error).splitlines()[0]) from None


def _command(words: Sequence[str]) -> Command:
    """The command that the words name, after checking its words and flags."""
    if not words:
        raise ValueError(f"COMMAND: is missing (valid: {', '.join(COMMANDS)}); --help says more")
    name, rest = words[0], words[1:]
    if name not in COMMANDS:
        raise ValueError(f"{name}: {no_such('command', name, COMMANDS)}")
    command = COMMANDS[name]
    if not command.takes(len(rest)):
        found = f"{len(rest)} words" if len(rest) != 1 else "1 word"
        raise ValueError(f"{' '.join(words)}: must be '{name} {command.words}', has {found}")
    for flag in _OURS:
        if flag.present and flag.name not in command.flags:
            valid = ", ".join(f"--{flag}" for flag in command.flags) or "none"
            raise ValueError(f"--{flag.name}: is no flag of {name} (valid: {valid})")
    return command


def main(argv: Sequence[str]) -> int:
    """Runs one command line, argv[0] being the program; returns the exit code."""
    if any(word == "-h" or word.startswith("--help") for word in argv):
        print(usage())
        return 0
    try:
        words = parse(argv)
        _command(words).act(words[1:])
    except (ValueError, OSError) as error:
        if not is_mistake(error):
            raise
        print(f"error: {line(error)}", file=sys.stderr)
        return 2
    except Interrupted as stopped:
        print(stopped, file=sys.stderr)
        return 0
    except KeyboardInterrupt:
        print("error: interrupted; the same command resumes a run", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
