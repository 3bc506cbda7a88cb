"""Names of parts: what stands behind each, its summary and paper, and the nearest to a wrong one.

The standard library only: the command lists and completes names without importing JAX.
"""

import dataclasses
import difflib
import importlib
import typing

# The package whose import runs the register(...) lines of a kind; it must import nothing heavy.
HOMES = {
    "router": "moe.routers",
    "score": "moe.routers",
    "noise": "moe.routers",
    "rule": "moe.routers",
    "key": "moe.routers",
    "table": "moe.routers",
    "gate": "moe.routers",
    "layout": "moe.routers",
    "dispatch": "moe.dispatch",
    "overflow": "moe.dispatch",
    "priority": "moe.dispatch",
    "kernel": "moe.kernels",
    "layer": "moe.model",
    "experts": "moe.experts",
    "shared": "moe.experts",
    "null": "moe.experts",
    "schedule": "moe.optimizer",
    "metric": "moe.analysis",
    "comparison": "moe.analysis",
    "study": "experiments.studies",
    "size": "configs",
    "command": "experiments.command",
    "benchmark": "experiments.bench",
}


@dataclasses.dataclass(frozen=True)
class _Entry:
    target: str
    summary: str
    paper: str


_ENTRIES: dict[str, dict[str, _Entry]] = {}


class Mistake(ValueError):
    """What the user did wrong, in one line: the field, the value, the rule, what is valid."""


def register(kind: str, name: str, target: str, summary: str, paper: str = "") -> None:
    """Names a class or an instance, "package.module:attribute", imported only when looked up.

    paper is an arXiv id or another short source. Raises Mistake for an unknown kind, a
    malformed target and a name that is taken.
    """
    _known_kind(kind)
    if target.count(":") != 1:
        raise Mistake(f"{kind}.{name}={target}: must be 'package.module:attribute'")
    entries = _ENTRIES.setdefault(kind, {})
    if name in entries:
        raise Mistake(f"{kind}.{name}={target}: is taken by {entries[name].target}")
    entries[name] = _Entry(target, summary, paper)


def names(kind: str) -> tuple[str, ...]:
    """The registered names of a kind, in the order of registration.

    Raises Mistake for a kind whose package is not there, as those of the command in a library that
    was installed.
    """
    _known_kind(kind)
    package = HOMES[kind].partition(".")[0]
    try:
        importlib.import_module(HOMES[kind])
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        valid = [kind for kind in HOMES if HOMES[kind].partition(".")[0] == "moe"]
        raise Mistake(
            f"{kind}: needs the package {package!r} of the command, which is on the path in a "
            f"clone and inside the command; valid here: {', '.join(valid)}"
        ) from error
    return tuple(_ENTRIES.get(kind, {}))


def summary(kind: str, name: str) -> str:
    """The one-line summary given with the name."""
    return entry(kind, name, f"{kind}={name}").summary


def paper(kind: str, name: str) -> str:
    """The source given with the name, or ""."""
    return entry(kind, name, f"{kind}={name}").paper


def lookup(kind: str, name: str) -> object:
    """The object of a registered name: a class is called with no arguments, the rest is as it is.

    Raises Mistake with the nearest name and the valid names.
    """
    return load(entry(kind, name, f"{kind}={name}"))


def no_such(noun: str, name: str, valid: typing.Iterable[str]) -> str:
    """The end of an error line: "no such NOUN; did you mean 'x'? (valid: x, y)"."""
    choices = sorted(valid)
    near = max(choices, key=lambda choice: (_likeness(name, choice), -len(choice)), default="")
    close = bool(name and choices) and _likeness(name, near) >= 0.6
    hint = f"; did you mean {near!r}?" if close else ""
    return f"no such {noun}{hint} (valid: {', '.join(choices) or 'none so far'})"


def _likeness(name: str, choice: str) -> float:
    """1 for the same letters; a part or the beginning of the choice counts a little less."""
    name, choice = name[:100].lower().replace("-", "_"), choice.lower()

    def ratio(part):
        matcher = difflib.SequenceMatcher(None, name.replace("_", ""), part.replace("_", ""))
        return (matcher.ratio() + matcher.quick_ratio()) / 2  # the latter ignores the order

    return max(ratio(choice), *(0.95 * ratio(p) for p in [*choice.split("_"), choice[: len(name)]]))


def _known_kind(kind: str) -> None:
    if kind not in HOMES:
        raise Mistake(f"kind={kind}: {no_such('kind', kind, HOMES)}")


def entry(kind: str, name: str, where: str, optional: bool = False) -> _Entry:
    valid = names(kind)
    if name not in valid:
        choices = [*valid, "none"] if optional else valid
        raise Mistake(f"{where}: {no_such(kind, name, choices)}")
    return _ENTRIES[kind][name]


def load(entry: _Entry) -> object:
    module, attribute = entry.target.split(":")
    found = getattr(importlib.import_module(module), attribute)
    return found() if isinstance(found, type) else found
