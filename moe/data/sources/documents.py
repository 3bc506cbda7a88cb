"""Documents with labels, and which of them are held out."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

HELD_OUT_SHARE = 0.05  # of a desk's bytes


class Labelled(Protocol):
    """What is known of a document besides its text: `Document`, or a piece of a file."""

    @property
    def key(self) -> str: ...
    @property
    def desk(self) -> str: ...
    @property
    def label(self) -> str: ...
    @property
    def group(self) -> str: ...
    @property
    def trained(self) -> bool: ...
    @property
    def size(self) -> int: ...
    @property
    def digest(self) -> str: ...


@dataclass(frozen=True)
class Document:
    """One text with its labels; `label` is the finer class, spelled desk/name."""

    key: str
    desk: str
    label: str
    group: str
    text: str
    trained: bool = False  # never held out

    @property
    def size(self) -> int:
        """Bytes of the text."""
        return len(self.text.encode())

    @property
    def digest(self) -> str:
        """SHA-256 of the text."""
        return stable_hash(self.text)


def held_out(documents: Iterable[Labelled], share: float = HELD_OUT_SHARE) -> set[str]:
    """Keys of the documents held out: whole groups, about `share` of each desk's bytes.

    Groups that have a text in common share a side, so they are one, of one desk or several. They
    are tried in the order of the SHA-256 of their name, the first where they are one. What would
    take a desk past 1.2 * share, or more than half of a class away from training, is passed over.
    """
    size = defaultdict(int)  # of a desk, of a class
    groups = defaultdict(list)
    for document in documents:
        size[document.desk] += document.size
        size[document.label] += document.size
        groups[document.desk, document.group].append(document)
    taken, keys = defaultdict(int), set()
    for members in _joined(groups):
        desks = {d.desk for d in members}
        full = any(taken[desk] >= share * size[desk] for desk in desks)
        if full or any(d.trained for d in members):
            continue
        after = defaultdict(int, taken)
        for document in members:
            after[document.desk] += document.size
            after[document.label] += document.size
        halves = all(2 * after[d.label] <= size[d.label] for d in members)
        if halves and all(after[desk] <= 1.2 * share * size[desk] for desk in desks):
            taken = after
            keys |= {d.key for d in members}
    return keys


def _joined(groups: dict[tuple[str, str], list]) -> Iterator[list]:
    """The documents of each group with those of all groups that share a text, or share one by way
    of others, in the order in which they are tried."""
    order = sorted(groups, key=lambda name: stable_hash("\n".join(name)))
    root = {name: name for name in order}  # the first group of those that are one

    def first(name):
        while root[name] != name:
            root[name] = name = root[root[name]]
        return name

    rank, owner = {name: i for i, name in enumerate(order)}, {}
    for name in order:
        for document in groups[name]:
            pair = first(name), first(owner.setdefault(document.digest, name))
            here, there = sorted(pair, key=rank.__getitem__)
            root[there] = here
    members = defaultdict(list)
    for name in order:
        members[first(name)] += groups[name]
    yield from members.values()


def stable_hash(text: str) -> str:
    """The same on every machine and in every process, unlike hash()."""
    return hashlib.sha256(text.encode()).hexdigest()
