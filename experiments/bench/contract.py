"""What a benchmark is: something that can be timed, with the flags of the command that it takes."""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """A benchmark; its name and its line for `bench --help` stand where it is registered.

    Attributes:
      act: gets the values of its flags, by name with _ for -; raises Mistake before it times.
      flags: names of those that it takes: the command's shared ones, or of its own file.
      examples: command lines, without the program and `bench NAME`.
    """

    act: Callable[[Any], None]
    flags: tuple[str, ...] = ()
    examples: tuple[str, ...] = ("",)


def folder(workdir: str | None) -> pathlib.Path | None:
    """Where --workdir wants the results, if anywhere."""
    return pathlib.Path(workdir) if workdir else None
