"""What a compiled program holds: its collectives, how often each runs, and the bytes they carry.

Read from the text of optimized HLO. On TPU some stand in fusions: a sum of which a device keeps a
part is a fused all-reduce and dynamic-slice, and does the work of a reduce-scatter; one that runs
beside other work is started in one fusion, named again in those that it runs beside, and ended in
another.
"""

import dataclasses
import math
import re

import numpy as np

from moe.cost.hlo import Instruction, Program, elements

KINDS = (
    "ragged-all-to-all",
    "all-to-all",
    "all-gather",
    "all-reduce",
    "reduce-scatter",
    "collective-permute",
)
_SHAPE = re.compile(r"\b([a-z]+\d+(?:e\d+m\d+\w*)?|pred)\[([\d,]*)\]")
_RANGE = r"\[([\d,]+)\](?:T\(([\d,]+)\))?"  # sizes of 0, 1, ..., and the order of its axes
_MESH = re.compile(
    rf"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\({_RANGE}\))? ?\{{([^}}]*)\}}"
)
_PACKED = re.compile(rf"replica_groups=\[(\d+),(\d+)\]<={_RANGE}")
_LISTED = re.compile(r"(?:replica_groups|source_target_pairs)=\{\{([\d,]+)\}")
_STARTS = 'custom_call_target="AsyncCollectiveStart"'
_BESIDE = "async_collective_fusion_config"  # in all places that name a collective beside work
_SLICE = "dynamic-slice"
_KEEPS = ("bitcast", "copy", "reshape", "convert", "transpose")  # all of what goes in


@dataclasses.dataclass(frozen=True)
class Collective:
    """One collective operation of a program.

    Attributes:
      kind: its name in HLO; a fused all-reduce that leaves each device its part is told as the
        reduce-scatter that it is.
      shape: of the largest array that it returns on a device, as HLO writes it: f32[8,64].
      group: the devices that exchange with each other; () is all of them.
      runs: how often one run of the program executes it.
      bytes: what it returns to a device, all runs together.
      sure: whether it always runs so often. In a branch it may not run at all; in a loop whose
        length the program does not say it is counted once.
    """

    kind: str
    shape: str
    group: tuple[int, ...]
    runs: int
    bytes: int
    sure: bool = True


def collectives(text: str) -> list[Collective]:
    """All collectives of a program, except those of a device with itself."""
    program = Program(text)
    fused = program.fused()
    found = []
    for (name, sure), runs in program.runs().items():
        here = program.computations[name]
        for one in here.values():
            kind = one.opcode.removesuffix("-start")
            if kind not in KINDS or not runs or not _begins(one, here):
                continue
            parts = _parts(one, here) if kind == "all-reduce" and name in fused else []
            kind, types = ("reduce-scatter", parts) if parts else (kind, _returned(one, kind))
            shapes = [shape for each in types for shape in _SHAPE.findall(each)]
            group = _group(one.attributes)
            if len(group) != 1:
                sizes = [_bytes(*shape) for shape in shapes]
                largest = "{}[{}]".format(*shapes[int(np.argmax(sizes))])
                found.append(Collective(kind, largest, group, runs, runs * sum(sizes), sure))
    return found


def _begins(one: Instruction, here: dict[str, Instruction]) -> bool:
    """Whether it begins here, and does not run on beside other work, or end."""
    if _BESIDE not in one.attributes:
        return True
    begun = {
        name for other in here.values() if _STARTS in other.attributes for name in other.operands
    }
    reached, names = {one.name}, [one.name]
    while names:
        name = names.pop()
        new = [o.name for o in here.values() if name in o.operands and o.name not in reached]
        reached |= set(new)
        names += new
    return bool(begun & reached)


def _parts(one: Instruction, here: dict[str, Instruction]) -> list[str]:
    """The types of the slices of its result; none where something reads the whole of it."""
    found = []
    for reader in here.values():
        if one.name in reader.operands:
            keeps = reader.opcode in _KEEPS
            inner = _parts(reader, here) if keeps else [reader.type] * (reader.opcode == _SLICE)
            if not inner:
                return []
            found += inner
    return found


def _returned(one: Instruction, kind: str) -> list[str]:
    """The types of what it returns to a device.

    The result of a start holds what goes in, what comes out and, of some, marks; that of an
    all-reduce only what comes out.
    """
    outer = elements(one.type)
    if one.opcode != kind and (kind != "all-reduce" or outer[0].startswith("(")):
        return elements(outer[1])
    return outer


def _bytes(kind: str, dims: str) -> int:
    bits = 8 if kind == "pred" else int(re.findall(r"\d+", kind)[0])
    return math.prod(int(d) for d in dims.split(",") if d) * bits // 8


def _group(attributes: str) -> tuple[int, ...]:
    """Devices of the first group: written out, by axes of a mesh, or as a transposed range."""
    listed = _LISTED.search(attributes)
    if listed:
        return tuple(sorted({int(d) for d in listed[1].split(",")}))
    named = _MESH.search(attributes)
    if named:
        axes = [int(size) for size in re.findall(r"=(\d+)", named[1])]
        devices = _range(named[2] or ",".join(map(str, axes)), named[3]).reshape(axes)
        return _along(re.findall(r"'(\w+)'", named[1]), devices, named[4])
    packed = _PACKED.search(attributes)
    if not packed:
        return ()
    devices = _range(packed[3], packed[4]).reshape(int(packed[1]), int(packed[2]))
    return tuple(sorted(devices[0].tolist()))


def _range(sizes: str, order: str | None) -> np.ndarray:
    """0, 1, ... in that shape, its axes in that order."""
    dims = [int(d) for d in sizes.split(",")]
    axes = [int(d) for d in order.split(",")] if order else range(len(dims))
    return np.arange(math.prod(dims)).reshape(dims).transpose(*axes)


def _along(names: list[str], devices: np.ndarray, chosen: str) -> tuple[int, ...]:
    """The devices that differ from the first one along the chosen axes, or parts of axes, only.

    A part of an axis is written 'axis':(4)2: of what follows its first 4 parts, 2.
    """
    kept = []
    for axis, size in zip(names, devices.shape, strict=True):
        index = np.arange(size)
        part = re.search(rf"'{axis}'(?::\((\d+)\)(\d+))?", chosen)
        if part is None:
            index = index[:1]
        elif part[1]:
            inner = size // (int(part[1]) * int(part[2]))
            index = index[: inner * int(part[2]) : inner]
        kept.append(index)
    return tuple(sorted(devices[np.ix_(*kept)].ravel().tolist()))


def table(found: list[Collective]) -> dict[str, tuple[int, int]]:
    """Kind -> (how many run, bytes that they return to a device)."""
    kinds = sorted({one.kind for one in found})
    return {
        kind: (
            sum(one.runs for one in found if one.kind == kind),
            sum(one.bytes for one in found if one.kind == kind),
        )
        for kind in kinds
    }
