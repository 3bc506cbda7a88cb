"""The command: python -m experiments list | show | run | report | diff | bench | data.

Every mistake is one line on stderr and exit code 2. Nothing heavy is imported before it is needed.
"""

import pathlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from absl import flags

from experiments import benchmarks, commands, huge_pages, options
from experiments.interrupts import Interrupted
from experiments.mistakes import is_mistake, line
from experiments.request import Request, checkpoints, parse_name, request, resolve, watch
from moe.devices import processes
from moe.registry import Mistake, no_such


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
    if options.COMPILE_FOR.value is not None:
        from experiments import ahead

        mesh = options.MESH.value or "auto"
        print(
            ahead.sheet(
                study, arms, options.SIZE.value, options.SET.value, mesh, options.COMPILE_FOR.value
            )
        )
        return
    if options.MESH.value is not None:
        raise Mistake(f"--mesh={options.MESH.value}: show takes it beside --compile-for")
    if arms is None:
        print(commands.study_table(study, options.SIZE.value, options.SET.value))
    else:
        print(commands.arm_sheet(study, arms[0], options.SIZE.value, options.SET.value))


def _run(words: Sequence[str]) -> None:
    study, arms = parse_name(words[0])
    if arms is not None and options.ARMS.value is not None:
        raise Mistake(f"--arms={','.join(options.ARMS.value)}: {words[0]} names an arm already")
    asked = request(
        study,
        arms or options.ARMS.value,
        options.SIZE.value,
        options.SEEDS.value,
        options.SET.value,
        options.WORKDIR.value,
    )
    watched = watch(options.PROFILE.value, options.WANDB.value, asked)
    place = checkpoints(options.CHECKPOINTS.value)
    mesh = _mesh(asked)
    from experiments import run
    from moe.devices.processes import is_first

    run.run(*asked, jobs=options.JOBS.value, mesh=mesh, checkpoints=place, **watched)
    if is_first():
        _publish(asked.workdir)


def _mesh(asked: Request):
    """The mesh that the flags name, its devices there, or None; joins the other processes."""
    if options.COORDINATOR.value is None:
        for flag in (options.NUM_PROCESSES, options.PROCESS_ID):
            if flag.value is not None:
                raise Mistake(f"--{flag.name}={flag.value}: needs --coordinator=HOST:PORT")
        if options.MESH.value is None:
            return None
    if options.JOBS.present:
        raise Mistake(f"--jobs={options.JOBS.value}: on a mesh the arms run one after the other")
    from moe.devices import mesh

    text = options.MESH.value or "auto"
    experiments = resolve(asked.study, asked.arms, asked.size, asked.overrides)
    if text != "auto":
        mesh.choose(text, experiments, None)
    if options.COORDINATOR.value is not None:
        processes.join(*(flag.value for flag in options.TOGETHER))
    alone = options.COORDINATOR.value is None
    return mesh.provide(text, experiments, 1 if alone else options.NUM_PROCESSES.value)


def _report(words: Sequence[str]) -> None:
    _publish(commands.study_directory(words[0]))


def _publish(directory: pathlib.Path) -> None:
    """Writes the report of a study, prints its table and says where the page is."""
    from experiments import report

    page = report.report(directory)
    print(report.table(directory))
    print(f"page: {page}")


def _diff(words: Sequence[str]) -> None:
    print(commands.difference(words[0], words[1], options.SIZE.value))


def _data(words: Sequence[str]) -> None:
    if words[0] != "prepare":
        raise Mistake(f"data {words[0]}: {no_such('action', words[0], ['prepare'])}")
    from moe.data.sources import catalogue

    print(f"prepared: {catalogue.prepare(words[1])}")


COMMANDS = {
    "list": Command(
        _list, "[PATTERN]", "studies, arms and parts; `list routers` says more of each router"
    ),
    "show": Command(
        _show,
        "STUDY[/ARM]",
        "every field, parameters, FLOPs per token and memory",
        ("size", "set", "mesh", "compile-for"),
    ),
    "run": Command(
        _run,
        "STUDY[/ARM]",
        "train (or resume) the arms, print the table, write the page",
        (
            "size",
            "arms",
            "seeds",
            "set",
            "workdir",
            "checkpoints",
            "jobs",
            "profile",
            "wandb",
            "mesh",
        )
        + tuple(flag.name for flag in options.TOGETHER),
    ),
    "report": Command(_report, "DIR", "write the table, figures and page of a study again"),
    "diff": Command(
        _diff, "A B", "the fields that differ; each a STUDY/ARM or a run's folder", ("size",)
    ),
    "bench": Command(
        benchmarks.run,
        "BENCHMARK",
        "time one of: step, router, layer (dispatchers), groups (of routing), data",
        ("size", "arms", "set", "shape", "skews", "dtype", "workdir"),
    ),
    "data": Command(
        _data,
        "prepare NAME",
        "download and prepare a data set of TFDS, for data.source=tfds:NAME",
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
    for flag in options.OURS:
        users = ", ".join(name for name, command in COMMANDS.items() if flag.name in command.flags)
        value = "PATH=VALUE" if flag is options.SET else flag.name.upper()
        default = "" if flag.default in (None, []) else f" [{flag.default}]"
        lines.append(f"  --{flag.name + '=' + value:<18} {_help(flag)}{default} ({users})")
    return "\n".join([*lines, "", _EXAMPLES])


def _help(flag: flags.FlagHolder) -> str:
    """The help of a flag, without what absl appends to it."""
    return flags.FLAGS[flag.name].help.split("\n")[0].rstrip(";")


def parse(argv: Sequence[str]) -> list[str]:
    """Sets the flags and returns the words; raises Mistake, one line, for a bad flag."""
    try:
        return flags.FLAGS(list(argv))[1:]
    except flags.UnrecognizedFlagError as error:
        rule = no_such("flag", error.flagname, [flag.name for flag in options.OURS])
        raise Mistake(f"--{error.flagname}: {rule}") from None
    except flags.IllegalFlagValueError as error:
        given = str(error).split(": ")[0].removeprefix("flag ")
        parser = flags.FLAGS[given.removeprefix("--").split("=")[0]].parser
        raise Mistake(f"{given}: must be {parser.syntactic_help}") from None
    except flags.Error as error:
        raise Mistake(str(error).splitlines()[0]) from None


def _command(words: Sequence[str]) -> Command:
    """The command that the words name, after checking its words and flags."""
    if not words:
        raise Mistake(f"COMMAND: is missing (valid: {', '.join(COMMANDS)}); --help says more")
    name, rest = words[0], words[1:]
    if name not in COMMANDS:
        raise Mistake(f"{name}: {no_such('command', name, COMMANDS)}")
    command = COMMANDS[name]
    if not command.takes(len(rest)):
        found = f"{len(rest)} words" if len(rest) != 1 else "1 word"
        raise Mistake(f"{' '.join(words)}: must be '{name} {command.words}', has {found}")
    for flag in options.OURS:
        if flag.present and flag.name not in command.flags:
            valid = ", ".join(f"--{flag}" for flag in command.flags) or "none"
            raise Mistake(f"--{flag.name}: is no flag of {name} (valid: {valid})")
    return command


def main(argv: Sequence[str]) -> int:
    """Runs one command line, argv[0] being the program; returns the exit code."""
    if any(word == "-h" or word.startswith("--help") for word in argv):
        print(usage())
        return 0
    try:
        words = parse(argv)
        _command(words).act(words[1:])
    except (Mistake, OSError) as error:
        if not is_mistake(error):
            raise
        workdir = options.WORKDIR.value if flags.FLAGS.is_parsed() else None
        print(f"error: {line(error, workdir)}", file=sys.stderr)
        return 2
    except Interrupted as stopped:
        print(stopped, file=sys.stderr)
        return 0
    except KeyboardInterrupt:
        print("error: interrupted; the same command resumes a run", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    if sys.argv[1:3] == ["bench", "step"]:  # trains as `run` does
        huge_pages.restart()
    sys.exit(main(sys.argv))
