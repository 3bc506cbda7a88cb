"""Whether training fits the memory that is there, by formula, before anything compiles."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from experiments.results.folder import Task
from moe import files
from moe.registry import Mistake

if TYPE_CHECKING:  # it imports JAX
    from moe.devices.mesh import Mesh

_GROUPS = pathlib.Path("/sys/fs/cgroup")


def check(tasks: Sequence[Task], count: int, mesh: Mesh | None) -> None:
    """Raises Mistake, one line with the bytes, unless the first tasks fit the memory.

    Args:
      tasks: dearest first; as many as `count` of them train at the same time.
      mesh: what each trains on; None is one device. The devices of a CPU share its memory.
    """
    import jax

    first, device = tasks[:count], jax.local_devices()[0]
    if device.platform == "cpu":
        place, there, own = "on this machine", free(), jax.process_count()
        copies = mesh.size // own if mesh else 1
    else:
        place, there, copies = "on each device", _of_device(device), 1
    needed = {task.arm: _needed(task.experiment, mesh, copies) for task in first}
    asked = sum(sum(parts.values()) for parts in needed.values())
    if there is None or asked <= there:
        return
    arm = max(needed, key=lambda arm: sum(needed[arm].values()))
    what = f"{len(first)} runs at the same time" if len(first) > 1 else f"training {arm}"
    most = ", ".join(f"{part} {_gb(n)}" for part, n in needed[arm].items())
    of = f" of {arm}" * (len(first) > 1)
    raise Mistake(
        f"memory: {what} takes about {_gb(asked)} ({most}{of}), {_gb(there)} are free {place}; "
        f"{_advice(needed[arm], len(first))}, or go on with --memory=ignore"
    )


def _needed(experiment: Any, mesh: Mesh | None, copies: int) -> dict[str, int]:
    """Bytes by part, of so many devices."""
    from moe.cost.memory import in_training
    from moe.devices.mesh import planned

    with planned(mesh) if mesh else contextlib.nullcontext():
        return {part: count * copies for part, count in in_training(experiment).items()}


def _advice(parts: Mapping[str, float], count: int) -> str:
    fewer = "lower --jobs, " * (count > 1)
    if parts["activations"] * 2 > sum(parts.values()):
        return f"{fewer}lower train.batch or data.sequence_length, raise train.accumulate"
    return f"{fewer}lower model.model_width, model.num_layers or the number of experts"


def _gb(count: float) -> str:
    return f"{count / 1e9:,.1f} GB"


def _of_device(device: Any) -> int | None:
    """The memory of an accelerator, where its driver tells."""
    try:
        return (device.memory_stats() or {}).get("bytes_limit")
    except Exception:  # of a type that differs between platforms
        return None


def free() -> int | None:
    """Bytes that this process may still take: of the machine, and of its control group."""
    try:
        own = files.text("/proc/self/cgroup").strip().rpartition("::")[2].strip("/")
    except files.Unreadable:
        own = ""
    found = [_of_machine(), *_of_groups(_GROUPS, own)]
    return min((count for count in found if count is not None), default=None)


def _of_machine() -> int | None:
    """What Linux can give without swapping, and the swap."""
    try:
        lines = files.text("/proc/meminfo").splitlines()
    except files.Unreadable:
        return None
    kib = {line.partition(":")[0]: line.split()[1] for line in lines if line.count(" ")}
    return 1024 * (int(kib["MemAvailable"]) + int(kib.get("SwapFree", 0)))


def _of_groups(root: pathlib.Path, own: str) -> list[int]:
    """What each control group (version 2) leaves, from the process's own up to the root."""
    found = []
    for folder in [root / own, *(root / own).parents][: len(pathlib.Path(own).parts) + 1]:
        try:
            limit, used = (files.text(folder / f"memory.{of}") for of in ("max", "current"))
            rows = dict(line.split() for line in files.text(folder / "memory.stat").splitlines())
        except files.Unreadable:
            continue
        if limit.strip().isdigit():
            cached = int(rows.get("inactive_file", 0))  # given back when it is wanted
            found.append(int(limit) - int(used) + cached)
    return found
