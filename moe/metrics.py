"""The record of a run: JSON lines, and the same scalars for TensorBoard."""

import json
import math
import os
import pathlib


class MetricsLog:
    """Appends rows to DIR/metrics.jsonl and scalars to DIR/tensorboard.

    A row is a flat or nested dict with "kind" and "step". On resume, rows after the step that was
    restored are dropped, so that a run which was cut off leaves the same record as one that was
    not.
    """

    def __init__(self, directory: pathlib.Path, resume_step: int):
        """Opens the log, keeping the rows up to and including `resume_step`."""
        # Loaded here, so that importing moe stays light.
        from tensorboardX import SummaryWriter

        self.path = directory / "metrics.jsonl"
        kept = [row for row in read(self.path) if row["step"] <= resume_step]
        part = self.path.with_suffix(".part")
        part.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
        os.replace(part, self.path)
        self._file = self.path.open("a", encoding="utf-8")
        self._writer = SummaryWriter(
            str(directory / "tensorboard"), purge_step=resume_step + 1, flush_secs=30
        )

    def write(self, row: dict) -> None:
        """Appends one row and its numbers."""
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        for name, value in scalars(row):
            if math.isfinite(value):  # TensorBoard has no place for the rest; JSON keeps it
                self._writer.add_scalar(f"{row['kind']}/{name}", value, row["step"])

    def close(self) -> None:
        """Closes both files."""
        self._file.close()
        self._writer.close()


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
