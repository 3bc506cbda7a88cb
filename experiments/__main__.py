"""The command, python -m experiments: finds what its words name, and says every mistake in a line.

Nothing heavy is imported before it is needed.
"""

import sys
from collections.abc import Sequence
from typing import NoReturn

from absl import flags as absl_flags

from experiments.command import flags, streams
from experiments.command.contract import commands, find
from experiments.command.usage import help_of, usage
from experiments.runner.interrupts import Interrupted
from experiments.runner.mistakes import is_mistake, line


def act(argv: Sequence[str]) -> None:
    """Does what a command line says, argv[0] being the program; raises what goes wrong."""
    known = commands()
    if any(word == "-h" or word.startswith("--help") for word in argv):
        words = [word for word in argv[1:] if not word.startswith("-")]
        print(help_of(words, argv[0], known) if words else usage(argv[0], known))
        return
    ours = list(dict.fromkeys(flag for command in known.values() for flag in command.flags))
    words = flags.parse(argv, ours)
    name, command = find(words, known)
    command.act(words[1:], flags.given(name, command.flags, ours))


def main(argv: Sequence[str]) -> int:
    """Runs one command line, argv[0] being the program as usage names it; returns the exit code.

    0 where it has finished, or a person stopped it and it saved; 2 where the user or the machine
    is the cause, told in a line; 75 where the system stopped it and it saved, so that it is to be
    started again; 130 after a second signal, which saves nothing. A bug is raised.
    """
    try:
        act(argv)
    except Interrupted as stopped:
        streams.tell(str(stopped))
        return stopped.code
    except KeyboardInterrupt:
        streams.tell("error: interrupted; the same command resumes a run")
        return 130
    except Exception as error:
        workdir = absl_flags.FLAGS["workdir"].value if absl_flags.FLAGS.is_parsed() else None
        if not is_mistake(error, workdir):
            raise
        streams.tell(f"error: {line(error, workdir)}")
        return 2
    return 0


def start(program: str) -> NoReturn:
    """Runs this process's command line, and ends it."""
    streams.prepare()
    sys.exit(streams.finish(main([program, *sys.argv[1:]])))


if __name__ == "__main__":
    start("python -m experiments")
