"""The record of a run: metrics as JSON lines, cut where a restart begins."""

import contextlib
import itertools
import os
import pathlib
from collections.abc import Iterable, Iterator

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
        kept = max((_until(text, resume_step) for text in self._found()), key=_count)
        self._broken = [line.number for line in kept if not line.record]
        self._last_step = max((line.record["step"] for line in kept if line.record), default=0)
        self._seal = kept[-1].seal if kept else ""
        files.write(self.path, "".join(map(_again, kept)))
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

    def _found(self) -> list[str]:
        """What stands in this folder, and in the copy if there is one."""
        found = [_text(self.path)]
        if self._copy is not None:
            with contextlib.suppress(FileNotFoundError):
                found.append(self._copy.read("", NAME))
        return found

    def gaps(self, expected: int) -> Iterable[str]:
        """What of the rows before the restart is not there, in lines.

        Args:
          expected: the step of the last row that there should be.
        """
        if self._broken:
            yield f"{self.path}: {files.broken(self._broken)}"
        if self._last_step < expected:
            yield (
                f"{self.path}: has no row after step {self._last_step}, and should have one of "
                f"step {expected}; what is lost stays lost, training goes on"
            )

    def write(self, row: dict) -> None:
        """Appends one row, sealed after the one before, and its numbers."""
        text = files.sealed(row, self._seal)
        self._seal = files.parsed(text)[files.SEAL]
        self._file.write(text + "\n")
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

    def gaps(self, expected: int) -> Iterable[str]:
        """Nothing of which it knows."""
        del expected
        return ()

    def write(self, row: dict) -> None:
        """Drops the row."""

    def watch_step(self, step: int) -> None:
        """Records nothing of the step."""

    def sync(self) -> None:
        """Has nothing to wait for."""

    def close(self) -> None:
        """Has nothing to close."""


def read(path: pathlib.Path) -> list[dict]:
    """The rows of a metrics.jsonl that follow from each other; no file is no rows."""
    return [line.record for line in _lines(_text(path)) if line.record]


def _text(path: pathlib.Path) -> str:
    return files.raw(path).decode("utf-8", "replace") if os.path.lexists(path) else ""


def _lines(text: str) -> Iterator[files.Line]:
    """The lines; no record is in those that are no rows."""
    for line in files.lines(text):
        record = line.record or {}
        row = "kind" in record and isinstance(record.get("step"), int)
        yield line if row else line._replace(record=None)


def _until(text: str, step: int) -> list[files.Line]:
    """The lines before the first row that is later than the step."""
    return list(
        itertools.takewhile(
            lambda line: line.record is None or line.record["step"] <= step, _lines(text)
        )
    )


def _again(line: files.Line) -> str:
    """The line as it was; one without a seal, of before, as strict JSON."""
    plain = line.record and not line.seal
    return (files.strict(line.record) if plain else line.text) + "\n"


def _count(lines: list[files.Line]) -> int:
    return sum(line.record is not None for line in lines)
