"""The record of a run: JSON lines, the same scalars for TensorBoard and others, and a profile."""

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import pathlib
import time

import jax

from moe.bucket import Bucket
from moe.files import write
from moe.store import Folder

NAME = "metrics.jsonl"


@dataclasses.dataclass(frozen=True)
class Watch:
    """What is recorded of a run besides; it changes no number of it.

    Attributes:
      profile: first and last step of a profile, written to DIR/profile for the usual viewers.
      wandb: the project of Weights & Biases that gets the scalars too.
      name: what the run is called there.
    """

    profile: tuple[int, int] | None = None
    wandb: str | None = None
    name: str = "run"


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
        write(self.path, "".join(json.dumps(row) + "\n" for row in kept))
        self._file = self.path.open("a", encoding="utf-8")
        self._sinks = [_Events(directory / "tensorboard", resume_step + 1)]
        if watch.wandb:
            self._sinks.append(_Wandb(directory, watch))
        self._profile = _Profile(directory / "profile", watch.profile)

    def _found(self) -> list[list[dict]]:
        """The rows of this folder, and those of the copy if there is one."""
        found = [read(self.path)]
        if self._copy is not None:
            with contextlib.suppress(FileNotFoundError):
                found.append(parsed(self._copy.read("", NAME)))
        return found

    def write(self, row: dict) -> None:
        """Appends one row and its numbers."""
        self._file.write(json.dumps(row) + "\n")
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


class _Profile:
    """A trace of the steps from first to last, by jax.profiler."""

    def __init__(self, directory: pathlib.Path, steps: tuple[int, int] | None):
        self._directory, self._steps, self._on = directory, steps, False

    def step(self, step: int) -> None:
        inside = self._steps is not None and self._steps[0] <= step <= self._steps[1]
        if inside and not self._on:
            jax.profiler.start_trace(str(self._directory))
            self._on = True
        elif not inside:
            self.close()

    def close(self) -> None:
        if self._on:
            self._on = False
            jax.profiler.stop_trace()


class _Wandb:
    """Weights & Biases; a run that resumes goes on there under the same id."""

    def __init__(self, directory: pathlib.Path, watch: Watch):
        import wandb  # only with its flag

        digest = hashlib.sha256(str(directory.absolute()).encode()).hexdigest()[:16]
        self._run = wandb.init(
            project=watch.wandb, name=watch.name, id=digest, resume="allow", dir=str(directory)
        )

    def write(self, row: dict) -> None:
        numbers = {f"{row['kind']}/{name}": value for name, value in scalars(row)}
        self._run.log(numbers, step=row["step"])

    def close(self) -> None:
        self._run.finish()


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


class _Events:
    """TensorBoard's event file, written at once: no thread and no queue outlives a kill."""

    def __init__(self, directory: pathlib.Path, first_step: int):
        # Loaded here, so that importing moe stays light.
        from tensorboardX import event_file_writer, summary
        from tensorboardX.proto import event_pb2

        directory.mkdir(parents=True, exist_ok=True)
        self._Event, self._scalar = event_pb2.Event, summary.scalar
        self._file = event_file_writer.EventsWriter(str(directory / "events"), f".{os.getpid()}")
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        # Hides what a run that was cut off wrote after the step that is restored.
        self._file.write_event(self._Event(session_log=start, step=first_step))
        self._file.flush()

    def write(self, row: dict) -> None:
        for name, value in scalars(row):
            if math.isfinite(value):  # TensorBoard has no place for the rest; JSON keeps it
                summary = self._scalar(f"{row['kind']}/{name}", value)
                event = self._Event(wall_time=time.time(), step=row["step"], summary=summary)
                self._file.write_event(event)
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def scalars(row: dict, prefix: str = ""):
    """Yields (path, number) for every number in a row; items of a list get their index."""
    for name, value in row.items():
        if isinstance(value, dict):
            yield from scalars(value, f"{prefix}{name}/")
        elif isinstance(value, list):
            yield from scalars({str(i): item for i, item in enumerate(value)}, f"{prefix}{name}/")
        elif isinstance(value, (int, float)) and (prefix or name != "step"):
            yield prefix + name, value


def read(path: pathlib.Path) -> list[dict]:
    """The rows of a metrics.jsonl; a last line that was cut off is left out, no file is no rows."""
    return parsed(path.read_text(encoding="utf-8", errors="replace")) if path.exists() else []


def parsed(text: str) -> list[dict]:
    """The rows of JSON lines, up to the first that is none."""
    rows = []
    for line in text.splitlines():
        try:
            row = json.loads(line)
            row["kind"], row["step"] + 0  # what every row has; a torn one may be JSON by chance
        except (json.JSONDecodeError, TypeError, KeyError):
            break
        rows.append(row)
    return rows
