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
    from moe.cost import compiled

    word = "fits" if report.fits else "DOES NOT FIT"
    total, capacity = _mebibytes(report.total), _mebibytes(report.capacity)
    lines = [
        f"  bytes on a device   {total} of {capacity}: {word}",
        f"    arguments         {_mebibytes(report.arguments)}",
        f"    temporaries       {_mebibytes(report.temporaries)}",
        f"  FLOPs of a step     {report.flops:,.3e} on a device",
        "  collectives of a step, and the bytes that a device gets",
    ]
    for kind, (count, size) in compiled.table(list(report.collectives)).items():
        lines.append(f"    {kind:<18}{count:>6} {_mebibytes(size)}")
    return lines if report.collectives else [*lines[:-1], "  collectives of a step: none"]


def _mebibytes(count: float) -> str:
    return f"{count / 2**20:>12,.2f} MiB"
