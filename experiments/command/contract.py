"""What a command is, and which of the flags it takes; the checks are the same for all of them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence

from experiments.command.flags import Given
from moe import registry
from moe.registry import Mistake


@dataclasses.dataclass(frozen=True)
class Command:
    """A command, as its file defines it; its name and summary stand where it is registered.

    Attributes:
      words: those that it takes, as its usage shows them; [OPTIONAL], [ANY...] number of them.
      act: gets the words, and the values of its flags; none where there is a kind.
      flags: names of those that it takes, defined in `flags` or in the command's own file.
      examples: command lines, without the program and the command's name.
      kind: where the first word names a registered part that has flags, examples and an act of
        its own, the kind of that part.
      summary: one line, filled in from the registry.
    """

    words: str
    act: Callable[[Sequence[str], Given], None] | None = None
    flags: tuple[str, ...] = ()
    examples: tuple[str, ...] = ()
    kind: str | None = None
    summary: str = ""

    def takes(self, count: int) -> bool:
        """Whether that many words fit."""
        words = self.words.split()
        most = count if words and words[-1].endswith("...]") else len(words)
        return sum(not word.startswith("[") for word in words) <= count <= most


def commands() -> dict[str, Command]:
    """Every command by its name, and each part that its first word names, as "bench step"."""
    found = {}
    for name in registry.names("command"):
        command = registry.lookup("command", name)
        found[name] = dataclasses.replace(command, summary=registry.summary("command", name))
        if command.kind is not None:
            found |= {f"{name} {part}": one for part, one in _parts(command.kind).items()}
    return found


def _parts(kind: str) -> dict[str, Command]:
    found = {}
    for name in registry.names(kind):
        part = registry.lookup(kind, name)
        act = functools.partial(_act_of, part)
        found[name] = Command(
            "", act, part.flags, part.examples, summary=registry.summary(kind, name)
        )
    return found


def _act_of(part, words: Sequence[str], given: Given) -> None:
    part.act(given)


def find(words: Sequence[str], known: Mapping[str, Command]) -> tuple[str, Command]:
    """The command that the words name, with its whole name; raises Mistake unless they fit."""
    if not words:
        valid = ", ".join(registry.names("command"))
        raise Mistake(f"COMMAND: is missing (valid: {valid}); --help says more")
    name, *rest = words
    command = known[checked(name)]
    if not command.takes(len(rest)):
        wanted = f"{name} {command.words}".strip()
        found = f"{len(rest)} words" if len(rest) != 1 else "1 word"
        raise Mistake(f"{' '.join(words)}: must be '{wanted}', has {found}")
    if command.kind is None:
        return name, command
    whole = f"{name} {rest[0]}"
    if whole not in known:
        wrong = registry.no_such(command.kind, rest[0], registry.names(command.kind))
        raise Mistake(f"{whole}: {wrong}")
    return whole, known[whole]


def checked(name: str) -> str:
    """The name of a command; raises Mistake for another."""
    valid = registry.names("command")
    if name not in valid:
        raise Mistake(f"{name}: {registry.no_such('command', name, valid)}")
    return name
