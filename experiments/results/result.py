"""result.json: what one run came to."""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.results.folder import RESULT, Task
from moe import files
from moe.analysis.load import RouterLoad
from moe.registry import Mistake

_NUMBERS = (
    "val_bits_per_byte",
    "params_total",
    "params_active",
    "flops_per_token",
    "tokens",
    "steps",
    "seed",
)
_OBJECTS = ("desk_loss", "flops_by_part", "params_by_part", "timing", "environment")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """One run that has ended; losses in nats per token, on held-out text, None if not finite.

    Attributes:
      study, size, arm, seed: which run.
      desk_loss, desk_tokens: of each desk of the held-out text.
      flops_per_token: of the forward pass; flops_by_part and params_by_part add up to the totals.
      router: load of the experts; None without any.
      hash: of each MoE layer with a hash table, its drift; None for other layers.
      baselines: the count-based ones on the same text.
      timing: what differs from run to run.
    """

    study: str
    size: str
    arm: str
    seed: int
    val_loss: float | None
    val_bits_per_byte: float | None
    desk_loss: Mapping[str, float | None]
    desk_tokens: Mapping[str, int] = dataclasses.field(default_factory=dict)
    params_total: int
    params_active: int
    params_by_part: Mapping[str, int] = dataclasses.field(default_factory=dict)
    flops_per_token: float
    flops_by_part: Mapping[str, float] = dataclasses.field(default_factory=dict)
    tokens: int
    steps: int
    router: RouterLoad | None = None
    hash: list[dict[str, Any] | None] = dataclasses.field(default_factory=list)
    baselines: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    timing: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    environment: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def finite(self) -> bool:
        """Whether every loss is a number."""
        return finite(self.val_loss) and all(map(finite, self.desk_loss.values()))

    def write(self, directory: Path) -> None:
        """Into the folder of its run, whole or not at all."""
        content = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        content["router"] = self.router and self.router.content()
        files.write(directory / RESULT, files.sealed(content, indent=1) + "\n")

    @classmethod
    def read(cls, path: Path, expected: Mapping[str, Any]) -> "Result":
        """The checked content of the file; raises Mistake that says what is wrong in it.

        Args:
          expected: values of some fields, without which it is another run's.
        """
        content = _parsed(path)
        for key in ("val_loss", "desk_loss", *_NUMBERS, *expected):
            if key not in content:
                raise Mistake(f"key {key!r} is missing")
        for key, value in expected.items():
            if content[key] != value:
                raise Mistake(f"{key}={content[key]!r} where {value!r} belongs")
        diverged = not finite(content["val_loss"])
        for key in _NUMBERS:
            if not finite(content[key]) and not (diverged and key == "val_bits_per_byte"):
                raise Mistake(f"{key}={content[key]!r} is not a finite number")
        for key in _OBJECTS:
            if not isinstance(content.get(key, {}), dict):
                raise Mistake(f"{key} is not an object")
        losses = {"val_loss": content["val_loss"], **content["desk_loss"]}
        for key, value in losses.items():
            if value is not None and not isinstance(value, int | float):
                raise Mistake(f"{key}={value!r} is neither a number nor null")
        known = {field.name for field in dataclasses.fields(cls)}
        found = {key: value for key, value in content.items() if key in known}
        router = found.get("router")
        return cls(**found | {"router": None if router is None else RouterLoad.read(router)})


def of_run(task: Task, seed: int) -> Result:
    """The result of a run that has ended; raises Mistake, one line, where it is not its own."""
    expected = {"study": task.study, "size": task.size, "arm": task.arm, "seed": seed}
    path = task.directory(seed) / RESULT
    try:
        return Result.read(path, expected)
    except Mistake as error:
        raise Mistake(f"{path}: {error}; remove it, and the same command makes it again") from None


def _parsed(path: Path) -> dict[str, Any]:
    try:
        content = files.content(path)
    except files.Unreadable as error:
        raise Mistake(error.why) from None
    if not isinstance(content, dict):
        raise Mistake("not a JSON object")
    return files.opened(content) if files.SEAL in content else content  # older ones have none


def finite(value: object) -> bool:
    """True for a finite number; JSON null, NaN, Infinity and what no float holds are not."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # of a whole number with hundreds of digits
        return False
