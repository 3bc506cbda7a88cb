"""The flags that commands share, and how a command line's flags are read; absl parses them."""

import re
import types
from collections.abc import Iterable, Sequence

from absl import flags

from experiments.text import aligned
from moe.registry import Mistake, no_such

LONGEST = 4096  # characters of an argument, as of a path

flags.DEFINE_string("size", "tiny", "which size of the study")
flags.DEFINE_list("arms", None, "only these arms, separated by commas")
flags.DEFINE_multi_string("set", [], "change a field, as --set train.steps=200; repeatable")
flags.DEFINE_string("workdir", None, "the folder of what comes out; a run resumes what is there")
flags.DEFINE_string("mesh", None, "devices by axis, as data:2,expert:4, or auto")


class Given(types.SimpleNamespace):
    """The values of the flags that a command takes, by name with _ for -.

    Attributes:
      present: names of the flags that stood in the command line.
    """

    present: frozenset[str]


def parse(argv: Sequence[str], ours: Iterable[str]) -> list[str]:
    """Sets the flags and returns the words; raises Mistake, one line, for a bad flag."""
    ours = list(ours)
    for argument in argv[1:]:
        _check(argument, ours)
    try:
        words = flags.FLAGS(list(argv))[1:]
    except flags.UnrecognizedFlagError as error:
        rule = no_such("flag", error.flagname, ours)
        raise Mistake(f"--{error.flagname}: {rule}") from None
    except flags.IllegalFlagValueError as error:
        given = str(error).split(": ")[0].removeprefix("flag ")
        parser = flags.FLAGS[given.removeprefix("--").split("=")[0]].parser
        rule = parser.syntactic_help or " or ".join(getattr(parser, "enum_values", ()))
        raise Mistake(f"{given}: must be {rule}") from None
    except flags.Error as error:
        raise Mistake(str(error).splitlines()[0]) from None
    for flag in flags.FLAGS:
        if flags.FLAGS[flag].present and flags.FLAGS[flag].name not in ours:
            raise Mistake(f"--{flag}: {no_such('flag', flag, ours)}")
    return words


def _check(argument: str, ours: Sequence[str]) -> None:
    """Raises Mistake for what absl would read a file for, or not survive."""
    if len(argument) > LONGEST:
        raise Mistake(
            f"{argument[:60]}...: has {len(argument):,} characters, must have at most {LONGEST:,}"
        )
    if re.search("[\ud800-\udfff]", argument):
        raise Mistake(f"{argument}: must be text in UTF-8")
    name = re.match("--?([^=]+)", argument)
    if name and (name[1] in ("flagfile", "undefok") or len(name[1]) > 60):
        raise Mistake(f"{argument.partition('=')[0]}: {no_such('flag', name[1], ours)}")


def given(name: str, taken: Sequence[str], ours: Iterable[str]) -> Given:
    """The values of the flags that the command of that name takes.

    Raises Mistake when another of ours stood in the command line.
    """
    present = frozenset(flag for flag in ours if flags.FLAGS[flag].present)
    for flag in ours:
        if flag in present and flag not in taken:
            valid = ", ".join(f"--{flag}" for flag in taken) or "none"
            raise Mistake(f"--{flag}: is no flag of {name} (valid: {valid})")
    values = {flag.replace("-", "_"): flags.FLAGS[flag].value for flag in taken}
    return Given(present=present, **values)


def described(taken: Sequence[str]) -> list[str]:
    """The lines of --help about some flags: what each is for, and its default."""
    rows = {}
    for name in taken:
        flag = flags.FLAGS[name]
        value = "=PATH=VALUE" if name == "set" else "" if flag.boolean else f"={name.upper()}"
        default = flag.default_as_str.strip("'") if flag.default not in (None, []) else ""
        says = flag.help.split("\n")[0].rstrip(";")  # absl appends lines of its own
        says = re.sub(r"^<[^>]*>: ", "", says)  # and begins with the values of an enum
        rows[f"--{name}{value}"] = says + f" [{default}]" * bool(default and not flag.boolean)
    return aligned(rows)
