"""Documents with labels, and which of them are held out."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable
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


def held_out(documents: Iterable[Labelled], share: float = HELD_OUT_SHARE) -> set[str]:
    """Keys of the documents held out: whole groups, about `share` of each desk's bytes.

    Groups are tried in the order of the SHA-256 of their name. One is passed over when it would
    take the desk past 1.2 * share, or take more than half of a class away from training.
    """
    size = defaultdict(int)  # of a desk, of a class
    groups = defaultdict(list)
    for document in documents:
        size[document.desk] += document.size
        size[document.label] += document.size
        groups[document.desk, document.group].append(document)
    taken, keys = defaultdict(int), set()
    for desk, group in sorted(groups, key=lambda name: stable_hash("\n".join(name))):
        members = groups[desk, group]
        if taken[desk] >= share * size[desk] or any(d.trained for d in members):
            continue
        after = defaultdict(int, taken)
        for document in members:
            after[desk] += document.size
            after[document.label] += document.size
        halves = all(2 * after[d.label] <= size[d.label] for d in members)
        if halves and after[desk] <= 1.2 * share * size[desk]:
            taken = after
            keys |= {d.key for d in members}
    return keys


def stable_hash(text: str) -> str:
    """The same on every machine and in every process, unlike hash()."""
    return hashlib.sha256(text.encode()).hexdigest()
