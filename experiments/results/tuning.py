"""tuning.json: what every value of a grid came to in every arm, and which one each arm took."""

import dataclasses
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from moe import files
from moe.registry import Mistake

FILE, FOLDER = "tuning.json", "tuning"  # the record, and the folder of the runs behind it


@dataclasses.dataclass(frozen=True)
class Choice:
    """One arm on one grid.

    Attributes:
      path: the field.
      arm: whose.
      losses: value -> held-out nats of each tuning seed, None where the run diverged.
      steps: of each of these runs.
    """

    path: str
    arm: str
    losses: Mapping[float, tuple[float | None, ...]]
    steps: int

    def mean(self, value: float) -> float:
        """The mean loss at a value; infinite where a run diverged."""
        found = self.losses[value]
        return math.inf if None in found else sum(x for x in found if x is not None) / len(found)

    @property
    def value(self) -> float:
        """The value of lowest mean loss; the lower one of equals."""
        return min(sorted(self.losses), key=self.mean)

    @property
    def at_edge(self) -> int:
        """-1 or 1 where the best is the lowest or the highest value that was tried, else 0."""
        return (self.value == max(self.losses)) - (self.value == min(self.losses))

    def content(self) -> dict[str, Any]:
        """As the file holds it."""
        record = dataclasses.asdict(self) | {"value": self.value, "at_edge": self.at_edge}
        return record | {"losses": [[value, list(self.losses[value])] for value in self.tried]}

    @property
    def tried(self) -> list[float]:
        """The values, rising."""
        return sorted(self.losses)


def write(directory: Path, choices: list[Choice]) -> None:
    """Seals the choices into the folder of their study."""
    record = {"choices": [choice.content() for choice in choices]}
    files.write(directory / FILE, files.sealed(record, indent=1) + "\n")


def read(directory: Path) -> list[Choice]:
    """The choices of a study, none where it has not been tuned; raises Mistake for a bad file."""
    path = directory / FILE
    if not os.path.lexists(path):
        return []
    try:
        content = files.opened(files.content(path))
        return [
            Choice(one["path"], one["arm"], {v: tuple(x) for v, x in one["losses"]}, one["steps"])
            for one in content["choices"]
        ]
    except files.Unreadable as error:
        raise Mistake(f"{path}: {error.why}") from None
    except (Mistake, KeyError, TypeError, ValueError) as error:
        why = error if isinstance(error, Mistake) else f"not as a run writes it ({error})"
        raise Mistake(f"{path}: {why}; remove it, and the same command makes it again") from None
