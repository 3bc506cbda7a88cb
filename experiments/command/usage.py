"""What --help prints: all commands, or one of them with its flags and examples."""

from collections.abc import Mapping, Sequence

from experiments.command import flags
from experiments.command.contract import Command, checked
from experiments.text import aligned


def usage(program: str, known: Mapping[str, Command]) -> str:
    """Every command with its line, and an example of each."""
    own = {name: command for name, command in known.items() if " " not in name}
    lines = [f"usage: {program} COMMAND [WORD]... [--FLAG=VALUE]...", "", "commands:"]
    lines += aligned({f"{name} {one.words}".strip(): one.summary for name, one in own.items()})
    lines += ["", f"`{program} COMMAND --help` says which flags it takes", "", "examples:"]
    lines += [line for name, one in own.items() for line in _examples(program, name, one)[:1]]
    return "\n".join(lines)


def help_of(words: Sequence[str], program: str, known: Mapping[str, Command]) -> str:
    """All about the command that the first words name; raises Mistake where they name none."""
    name = " ".join(words[:2])
    if name not in known:
        name = checked(words[0])
    command = known[name]
    head = " ".join(filter(None, [program, name, command.words]))
    flagged = " [--FLAG=VALUE]..." * bool(command.flags or command.kind)
    lines = [f"usage: {head}{flagged}", "", command.summary]
    parts = {n.partition(" ")[2]: one for n, one in known.items() if n.startswith(f"{name} ")}
    if parts:
        lines += ["", f"{command.words}, one of:"]
        lines += aligned({part: one.summary for part, one in parts.items()})
        lines += ["", f"`{head} --help` says which flags it takes"]
    if command.flags:
        lines += ["", "flags:", *flags.described(command.flags)]
    return "\n".join([*lines, "", "examples:", *_examples(program, name, command)])


def _examples(program: str, name: str, command: Command) -> list[str]:
    return [f"  {program} {name} {example}".rstrip() for example in command.examples]
