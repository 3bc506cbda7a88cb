"""The record of a run: JSON lines, and the same scalars for TensorBoard."""

import json
import math
import os
import pathlib
import time


class MetricsLog:
    """Appends rows to DIR/metrics.jsonl and scalars to DIR/tensorboard.

    A row is a flat or nested dict with "kind" and "step". On resume, rows after the step that was
    restored are dropped, so that a run which was cut off leaves the same record as one that was
    not.
    """

    def __init__(self, directory: pathlib.Path, resume_step: int):
        """Opens the log, keeping the rows up to and including `resume_step`."""
        self.path = directory / "metrics.jsonl"
        kept = [row for row in read(self.path) if row["step"] <= resume_step]
        part = self.path.with_suffix(".part")
        part.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
        os.replace(part, self.path)
        self._file = self.path.open("a", encoding="utf-8")
        self._events = _Events(directory / "tensorboard", resume_step + 1)

    def write(self, row: dict) -> None:
        """Appends one row and its numbers."""
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        self._events.write(row)

    def close(self) -> None:
        """Closes both files."""
        self._file.close()
        self._events.close()


class NoLog:
    """The log of a process that leaves the record to another one."""

    def write(self, row: dict) -> None:
        """Drops the row."""

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
    if not path.exists():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows
