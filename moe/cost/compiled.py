"""What a compiled program holds: its collectives, how often each runs, and the bytes they carry.

Read from the text of optimized HLO, where a loop is a computation that names its trip count.
"""

import dataclasses
import math
import re

import numpy as np

KINDS = "ragged-all-to-all|all-to-all|all-gather|all-reduce|reduce-scatter|collective-permute"
_START = re.compile(rf"\s({KINDS})(-start)?\(")
_SHAPE = re.compile(r"\b([a-z]+\d+(?:e\d+m\d+\w*)?|pred)\[([\d,]*)\]")
_HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) .*\{$")
_CALLED = re.compile(
    r"(?:body|condition|to_apply|calls)=(%?[\w.\-]+)|branch_computations=\{([^}]*)\}"
)
_TRIPS = re.compile(r'known_trip_count[^\d]*"(\d+)"')


@dataclasses.dataclass(frozen=True)
class Collective:
    """One collective operation of a program.

    Attributes:
      kind: its name in HLO.
      shape: of the largest array that it returns on a device, as HLO writes it: f32[8,64].
      group: the devices that exchange with each other.
      runs: how often one run of the program executes it.
      bytes: what it returns to a device, all runs together.
    """

    kind: str
    shape: str
    group: tuple[int, ...]
    runs: int
    bytes: int


def collectives(text: str) -> list[Collective]:
    """All collectives of a program, except those of a device with itself."""
    bodies = _computations(text)
    found = []
    for name, runs in _runs(bodies).items():
        for line in bodies[name]:
            match = _START.search(line)
            if match and runs and "=" in line[: match.start()]:
                one = _collective(line, match, runs)
                found += [one] if len(one.group) != 1 else []
    return found


def _collective(line: str, match: re.Match, runs: int) -> Collective:
    types = _SHAPE.findall(line[line.index("=") : match.start()])
    sizes = [_bytes(*each) for each in types]
    largest = max(range(len(sizes)), key=sizes.__getitem__)
    total = sum(sizes)
    if match[2]:  # the result of a start holds what goes in beside what comes out
        total = sizes[-1] if match[1] == "all-gather" else total // 2
        total = max(total, sizes[largest] if match[1] == "all-gather" else total)
    shape = "{}[{}]".format(*types[largest])
    return Collective(match[1], shape, _group(line), runs, runs * total)


def _bytes(kind: str, dims: str) -> int:
    bits = 8 if kind == "pred" else int(re.findall(r"\d+", kind)[0])
    return math.prod(int(d) for d in dims.split(",") if d) * bits // 8


def _group(line: str) -> tuple[int, ...]:
    """Devices of the first group: written out, by axes of a mesh, or as a transposed range."""
    listed = re.search(r"(?:replica_groups|source_target_pairs)=\{\{([\d,]+)\}", line)
    if listed:
        return tuple(int(d) for d in listed[1].split(","))
    named = re.search(r"replica_groups=mesh\[([^\]]*)\] ?\{([^}]*)\}", line)
    if named:
        return _along(re.findall(r"'(\w+)'=(\d+)", named[1]), re.findall(r"'(\w+)'", named[2]))
    packed = re.search(r"replica_groups=\[(\d+),(\d+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", line)
    if not packed:
        return ()
    dims = [int(d) for d in packed[3].split(",")]
    order = [int(d) for d in packed[4].split(",")] if packed[4] else range(len(dims))
    devices = np.arange(math.prod(dims)).reshape(dims).transpose(*order)
    return tuple(devices.reshape(int(packed[1]), int(packed[2]))[0].tolist())


def _along(axes: list[tuple[str, str]], chosen: list[str]) -> tuple[int, ...]:
    """The devices that differ from device 0 along the chosen axes only."""
    sizes = [int(size) for _, size in axes]
    cut = tuple(slice(None) if axis in chosen else 0 for axis, _ in axes)
    return tuple(np.arange(math.prod(sizes)).reshape(sizes)[cut].ravel().tolist())


def _computations(text: str) -> dict[str, list[str]]:
    """Name -> lines; the one where the program begins is named ""."""
    bodies: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.splitlines():
        head = _HEAD.match(line)
        if head:
            lines = bodies.setdefault("" if head[1] else head[2], [])
        lines.append(line)
    return bodies


def _runs(bodies: dict[str, list[str]]) -> dict[str, int]:
    """How often each computation runs; a loop of unknown length counts once."""
    runs = dict.fromkeys(bodies, 0)

    def visit(name, times):
        runs[name] += times
        for line in bodies[name]:
            trips = _TRIPS.search(line)
            often = times * int(trips[1]) if trips and " while(" in line else times
            for called in _CALLED.findall(line):
                for callee in re.findall(r"[\w.\-]+", " ".join(called)):
                    if callee in bodies:
                        visit(callee, often)

    visit("", 1)
    return runs


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
