"""Where a run keeps its files."""

import dataclasses
import pathlib
from typing import Any

RESULT, METRICS = "result.json", "metrics.jsonl"
LENGTHS = "lengths"  # in the folder of a study: one folder for each shorter length, a study itself
ELSEWHERE = "checkpoints.txt"  # in the folder of a run whose checkpoints are not there
DIVERGED = "diverged.txt"  # in the folder of a run that stopped for a number that is not finite


@dataclasses.dataclass(frozen=True)
class Task:
    """One arm of a study at some seeds, which share a compilation."""

    study: str
    size: str
    arm: str
    experiment: Any  # seed 0
    seeds: tuple[int, ...]
    workdir: pathlib.Path
    profile: tuple[int, int] | None = None  # first and last step
    wandb: str | None = None  # project
    checkpoints: str | None = None  # a folder or gs://BUCKET/PATH, instead of the runs' own folders

    def directory(self, seed: int) -> pathlib.Path:
        """Where the run of that seed lives."""
        return self.workdir / self.arm / f"seed{seed}"

    def finished(self, seed: int) -> bool:
        """Whether the run of that seed has come to its end."""
        return (self.directory(seed) / RESULT).exists()

    def checkpoint_directory(self, seed: int) -> str | None:
        """Where its checkpoints go, if not into its own folder."""
        return f"{self.checkpoints}/{self.arm}/seed{seed}" if self.checkpoints else None
