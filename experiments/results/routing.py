"""routing.json: what the page routing.html says in short, for the report of the study beside it."""

import dataclasses
from pathlib import Path

from moe import files

PAGE, FILE = "routing.html", "routing.json"


@dataclasses.dataclass(frozen=True)
class Sample:
    """What one expert was given.

    Attributes:
      run: arm and seed, as "ARM seed 0".
      layer, expert: numbers, from 0.
      share: of the choices of all traced tokens.
      tokens: texts of those that it has more of than its share, the most telling first.
    """

    run: str
    layer: int
    expert: int
    share: float
    tokens: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Routing:
    """The sentence that the page opens with, how many tokens were traced, and samples."""

    finding: str
    traced: int
    samples: tuple[Sample, ...]


def write(directory: Path, routing: Routing) -> None:
    """Writes routing.json, sealed."""
    files.write(directory / FILE, files.sealed(dataclasses.asdict(routing), indent=1) + "\n")


def read(directory: Path) -> Routing | None:
    """What `write` wrote, where the page lies beside it, else None.

    Raises Mistake, one line, where it is not what was written.
    """
    path = directory / FILE
    if not path.exists() or not (directory / PAGE).exists():
        return None
    try:
        said = files.unsealed(files.text(path))
        samples = [Sample(**{**one, "tokens": tuple(one["tokens"])}) for one in said["samples"]]
        return Routing(said["finding"], said["traced"], tuple(samples))
    except files.Unreadable:
        raise
    except (files.Mistake, KeyError, TypeError) as error:
        raise files.Unreadable(path, f"{error}; analyze the runs again") from None
