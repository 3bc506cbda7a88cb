"""What `show --compile-for` prints: training steps compiled for TPU slices that are not there."""

from collections.abc import Mapping
from typing import Any


def sheet(title: str, experiments: Mapping[str, Any], mesh_text: str, target: str) -> str:
    """A paragraph for each arm: bytes on a device, whether they fit, collectives and FLOPs.

    Args:
      title: the study and its size.
      experiments: arm -> experiment.
      mesh_text: axes and sizes, or "auto".
      target: the slice, as "v5e:4x4".
    """
    from moe.devices import mesh
    from moe.training import ahead

    if mesh_text != "auto":
        mesh.choose(mesh_text, experiments, None)
    devices = ahead.slice_devices(target)
    chosen = mesh.choose(mesh_text, experiments, len(devices))
    lines = [f"{title} on {target}: {len(devices)} devices, --mesh={chosen}"]
    for arm, experiment in experiments.items():
        lines += ["", arm, *_lines(ahead.compile_step(experiment, chosen, target, devices))]
    return "\n".join(lines)


def _lines(report) -> list[str]:
    word = "fits" if report.fits else "DOES NOT FIT"
    total, capacity = _mebibytes(report.total), _mebibytes(report.capacity)
    sure = [one for one in report.collectives if one.sure]
    perhaps = [one for one in report.collectives if not one.sure]
    lines = [
        f"  bytes on a device   {total} of {capacity}: {word}",
        f"    arguments         {_mebibytes(report.arguments)}",
        f"    temporaries       {_mebibytes(report.temporaries)}",
        f"  FLOPs of a step     {report.flops:,.3e} on a device",
        *_table("collectives of a step, and the bytes that a device gets", sure),
    ]
    if perhaps:
        lines += _table("if a branch is taken, or in each turn of a loop of any length", perhaps)
    return lines


def _table(title: str, found: list) -> list[str]:
    from moe.cost import compiled

    rows = compiled.table(found).items()
    lines = [f"    {kind:<18}{count:>6} {_mebibytes(size)}" for kind, (count, size) in rows]
    return [f"  {title}", *lines] if lines else ["  collectives of a step: none"]


def _mebibytes(count: float) -> str:
    return f"{count / 2**20:>12,.2f} MiB"
