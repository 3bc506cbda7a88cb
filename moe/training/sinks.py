"""Where metrics go besides JSON lines: TensorBoard, Weights & Biases, profiles."""

import dataclasses
import math
import os
import pathlib
import re
import secrets
import time
from typing import Any

import jax

from moe import files
from moe.registry import Mistake

ID = "wandb.txt"  # in the folder of a run: what it is called at Weights & Biases


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


class Profile:
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


class Wandb:
    """Weights & Biases; a run that resumes goes on there under the id that it drew when it began.

    The id is random and lies with the run: a copy or a removal of its folder never gives the
    history of one run to another that has the same path.
    """

    def __init__(self, directory: pathlib.Path, watch: Watch, drawn: str):
        import wandb  # pyright: ignore[reportMissingImports]  # only with its flag

        self._run = wandb.init(
            project=watch.wandb,
            name=watch.name,
            id=drawn,
            resume="allow",
            dir=str(directory),
        )

    def write(self, row: dict) -> None:
        numbers = {f"{row['kind']}/{name}": value for name, value in scalars(row)}
        self._run.log(numbers, step=row["step"])

    def close(self) -> None:
        self._run.finish()


def identity(path: pathlib.Path) -> str:
    """The id in the file, drawn and written where there is none; raises Mistake for another text.

    16 hexadecimal digits of the system's randomness: no seed and no place decides them.
    """
    if not os.path.lexists(path):
        files.write(path, secrets.token_hex(8) + "\n")
    found = files.text(path).strip()
    if not re.fullmatch(r"[0-9a-f]{16}", found):
        raise Mistake(f"{path}: is no id of a run; remove it, and the run gets another there")
    return found


class Events:
    """TensorBoard's event file, written at once: no thread and no queue outlives a kill."""

    def __init__(self, directory: pathlib.Path, first_step: int):
        # Loaded here, so that importing moe stays light.
        from tensorboardX import event_file_writer, summary
        from tensorboardX.proto import event_pb2

        events: Any = event_pb2  # what protobuf makes has no types

        directory.mkdir(parents=True, exist_ok=True)
        self._Event, self._scalar = events.Event, summary.scalar
        self._file = event_file_writer.EventsWriter(str(directory / "events"), f".{os.getpid()}")
        start = events.SessionLog(status=events.SessionLog.START)
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
