"""The record of a run: metrics as JSON lines, cut where a restart begins."""

import contextlib
import os
import pathlib

from moe import files
from moe.checkpoint.bucket import Bucket
from moe.checkpoint.folder import Folder
from moe.training.sinks import ID, Events, Profile, Wandb, Watch, identity

NAME = "metrics.jsonl"


class MetricsLog:
    """Appends rows to DIR/metrics.jsonl and scalars to DIR/tensorboard.

    A row is a flat or nested dict with "kind" and "step". On resume, rows after the step that was
    restored are dropped, so that a run which was cut off leaves the same record as one that was
    not.
    """

    def __init__(
        self,
        directory: pathlib.Path,
        resume_step: int,
        watch: Watch = Watch(),  # noqa: B008
        copy: Folder | Bucket | None = None,
    ):
        """Opens the log, keeping the rows up to and including `resume_step`.

        copy: where a second metrics.jsonl lies, which is taken where it has more of these rows.
        """
        self.path, self._copy = directory / NAME, copy
        kept = max(
            ([row for row in rows if row["step"] <= resume_step] for rows in self._found()), key=len
        )
        files.write(self.path, "".join(files.strict(row) + "\n" for row in kept))
        self._file = self.path.open("a", encoding="utf-8")
        self._sinks: list[Events | Wandb] = [Events(directory / "tensorboard", resume_step + 1)]
        if watch.wandb:
            self._sinks.append(Wandb(directory, watch, self._drawn(directory / ID)))
        self._profile = Profile(directory / "profile", watch.profile)

    def _drawn(self, path: pathlib.Path) -> str:
        """The id of the run at Weights & Biases: of its folder, else of the copy, else new."""
        if self._copy is None:
            return identity(path)
        with contextlib.suppress(FileNotFoundError):
            if not os.path.lexists(path):
                files.write(path, self._copy.read("", ID))
        self._copy.write("", ID, f"{identity(path)}\n")
        return identity(path)

    def _found(self) -> list[list[dict]]:
        """The rows of this folder, and those of the copy if there is one."""
        found = [read(self.path)]
        if self._copy is not None:
            with contextlib.suppress(FileNotFoundError):
                found.append(parsed(self._copy.read("", NAME)))
        return found

    def write(self, row: dict) -> None:
        """Appends one row and its numbers."""
        self._file.write(files.strict(row) + "\n")
        self._file.flush()
        for sink in self._sinks:
            sink.write(row)

    def watch_step(self, step: int) -> None:
        """Says that a step begins."""
        self._profile.step(step)

    def sync(self) -> None:
        """Waits until the rows are on disk, and in the copy."""
        os.fsync(self._file.fileno())
        if self._copy is not None:
            self._copy.write("", NAME, self.path.read_text(encoding="utf-8"))

    def close(self) -> None:
        """Closes everything."""
        self._profile.close()
        self._file.close()
        for sink in self._sinks:
            sink.close()


class NoLog:
    """The log of a process that leaves the record to another one."""

    def write(self, row: dict) -> None:
        """Drops the row."""

    def watch_step(self, step: int) -> None:
        """Records nothing of the step."""

    def sync(self) -> None:
        """Has nothing to wait for."""

    def close(self) -> None:
        """Has nothing to close."""


def read(path: pathlib.Path) -> list[dict]:
    """The rows of a metrics.jsonl; a last line that was cut off is left out, no file is no rows."""
    return parsed(files.raw(path).decode("utf-8", "replace")) if os.path.lexists(path) else []


def parsed(text: str) -> list[dict]:
    """The rows of JSON lines, up to the first that is none."""
    rows = []
    for line in text.splitlines():
        try:
            row = files.parsed(line)
            _ = row["kind"], row["step"] + 0  # what every row has; a torn one may be JSON by chance
        except (ValueError, TypeError, KeyError):
            break
        rows.append(row)
    return rows
