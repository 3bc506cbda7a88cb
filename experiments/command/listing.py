"""`list`: studies with their arms, and every part by kind."""

import fnmatch
from collections.abc import Sequence

from experiments.command.contract import Command
from experiments.command.flags import Given
from experiments.text import columns
from moe import registry
from moe.registry import Mistake

TITLES = {
    "router": "routers",
    "score": "router scores",
    "noise": "router noises",
    "rule": "bias rules",
    "key": "hash keys",
    "table": "hash tables",
    "gate": "hash gates",
    "layout": "layouts",
    "dispatch": "dispatchers",
    "overflow": "overflows",
    "priority": "slot priorities",
    "kernel": "grouped products",
    "layer": "MoE layers",
    "experts": "experts",
    "shared": "shared experts",
    "null": "null experts",
    "schedule": "schedules",
    "metric": "metrics of a trace",
    "comparison": "metrics of two traces",
    "size": "sizes",
}
_ROUTER_HEAD = ("router", "one line", "paper", "causal", "learned", "needs")


def act(words: Sequence[str], given: Given) -> None:
    """Prints what matches the only word, or everything."""
    print(listing(*words))


def listing(pattern: str = "") -> str:
    """Studies with arms and sizes, then the registered parts by kind, as far as they match.

    A pattern is a part of a name, a whole one with * and ?, or a kind, by its name or title, which
    is then listed in full. Raises Mistake if none matches.
    """
    if pattern.lower() in ("study", "studies"):
        return "\n".join(["studies", *_study_lines("*")])
    for kind, title in TITLES.items():
        if pattern.lower() in (kind, kind + "s", title.lower()):
            return kind_listing(kind)
    wanted = f"*{pattern}*" if not set(pattern) & set("*?[") else pattern
    blocks = [["studies", *_study_lines(wanted)], *_part_blocks(wanted)]
    found = [block for block in blocks if len(block) > 1]
    if not found:
        seen = {name for kind in ("study", *TITLES) for name in registry.names(kind)}
        seen |= {arm for name in registry.names("study") for arm in _arms(name)}
        valid = seen | set(TITLES.values())
        raise Mistake(f"list {pattern}: {registry.no_such('name', pattern, valid)}")
    return "\n\n".join("\n".join(block) for block in found)


def _arms(study_name: str) -> dict[str, str]:
    """The arms of a study, each with its line."""
    return dict(registry.lookup("study", study_name).arms)


def _study_lines(wanted: str) -> list[str]:
    lines = []
    for name in registry.names("study"):
        arms = _arms(name)
        hits = [arm for arm in arms if fnmatch.fnmatchcase(arm, wanted)]
        if fnmatch.fnmatchcase(name, wanted):
            hits = list(arms)
        if hits:
            sizes = ", ".join(registry.lookup("study", name).sizes)
            lines += [f"  {name:<20} {registry.summary('study', name)}"]
            lines += [f"    sizes: {sizes}", "    arms:"]
            lines += [f"      {arm:<14} {arms[arm]}" for arm in hits]
    return lines


def _part_blocks(wanted: str) -> list[list[str]]:
    """For each kind its title and the lines of the names that match."""
    blocks = []
    for kind, title in TITLES.items():
        hits = [name for name in registry.names(kind) if fnmatch.fnmatchcase(name, wanted)]
        blocks.append([title, *(f"  {name:<20} {registry.summary(kind, name)}" for name in hits)])
    return blocks


def kind_listing(kind: str) -> str:
    """Every registered part of a kind with its paper; routers with what they declare."""
    if kind == "router":
        head, rows = _ROUTER_HEAD, router_rows()
    else:
        head = (kind, "one line", "paper")
        rows = [
            (n, registry.summary(kind, n), registry.paper(kind, n)) for n in registry.names(kind)
        ]
        if not any(paper for _, _, paper in rows):
            head, rows = head[:2], [row[:2] for row in rows]
    return "\n".join(columns([head, *rows], left=range(len(head))))


def router_rows() -> list[tuple[str, ...]]:
    """(name, one line, paper, causal, learned, needs) of every router, which imports them all.

    causal is "yes", "no", or "evaluation only" where training looks at later tokens.
    """
    rows = []
    for name in registry.names("router"):
        router = registry.lookup("router", name)
        causal = "yes" if router.causal_in_training else "evaluation only"
        needs = [what for what in ("ids", "labels") if getattr(router, f"needs_{what}")]
        rows.append(
            (
                name,
                registry.summary("router", name),
                registry.paper("router", name),
                causal if router.causal else "no",
                "yes" if router.learned else "no",
                ", ".join(needs) or "nothing",
            )
        )
    return rows


COMMAND = Command(words="[PATTERN]", act=act, examples=("hash", "routers"))
