"""Reads the text of optimized HLO: instructions, computations, and how often each of them runs."""

import dataclasses
import functools
import re
from collections.abc import Callable, Iterator

_HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) .*\{$")
_NAME = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = ")
_OPCODE = re.compile(r"\s*([\w\-]+)\(")
_OPERAND = re.compile(r"%([\w.\-]+)")
_CALLED = re.compile(r"(?:to_apply|calls|(?:true|false)_computation)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_KNOWN_TRIPS = re.compile(r'known_trip_count[^\d]*"(\d+)"')
_FREE = ("copy", "bitcast", "convert", "reshape", "broadcast")  # as far as a scalar goes
_TURNED = {"LT": "GT", "GT": "LT", "LE": "GE", "GE": "LE", "EQ": "EQ", "NE": "NE"}


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation.

    Attributes:
      name, opcode: as HLO writes them.
      type: of its result, as "f32[8,16]{1,0}" or "(s32[], f32[8])".
      operands: their names; the value itself for a constant, the number for a parameter.
      attributes: what stands behind the operands.
      root: whether it is what the computation returns.
    """

    name: str
    type: str
    opcode: str
    operands: tuple[str, ...]
    attributes: str
    root: bool

    def attribute(self, name: str) -> str:
        """The word behind NAME=, without a leading "%"; "" where there is none."""
        found = re.search(rf"\b{name}=%?([\w.\-]+)", self.attributes)
        return found[1] if found else ""


@dataclasses.dataclass(frozen=True)
class Element:
    """The number that a loop carries at this place of its tuple, and what was added to it."""

    place: int
    plus: int = 0


Scalar = int | Element | None  # None: not known from the text


class Program:
    """The computations of a program by name; the one where it begins is named ""."""

    def __init__(self, text: str):
        """Reads the text that `compiled.as_text()` gives."""
        self.computations: dict[str, dict[str, Instruction]] = {}
        here: dict[str, Instruction] = {}
        for line in text.splitlines():
            head = _HEAD.match(line)
            if head:
                here = self.computations.setdefault("" if head[1] else head[2], {})
                continue
            found = _instruction(line)
            if found:
                here[found.name] = found

    def root(self, computation: str) -> Instruction | None:
        """What a computation returns."""
        found = [one for one in self.computations[computation].values() if one.root]
        return found[0] if found else None

    def fused(self) -> set[str]:
        """The computations of fusions: each runs as one kernel."""
        every = [one for here in self.computations.values() for one in here.values()]
        return {one.attribute("calls") for one in every if one.opcode == "fusion"}

    def runs(self) -> dict[tuple[str, bool], int]:
        """(computation, whether it is sure to run) -> how often one run of the program runs it.

        A branch of a conditional is not sure to run. A loop whose length the program does not say
        counts once, and is not sure either.
        """
        found: dict[tuple[str, bool], int] = {}
        waiting = [("", 1, True)]
        while waiting:
            name, times, sure = waiting.pop()
            if name not in self.computations:
                continue
            found[name, sure] = found.get((name, sure), 0) + times
            for one in self.computations[name].values():
                for callee, often, always in self._called(name, one):
                    waiting.append((callee, times * often, sure and always))
        return found

    def _called(self, name: str, one: Instruction) -> Iterator[tuple[str, int, bool]]:
        """(computation, times, whether for sure) that one run of an instruction runs."""
        if one.opcode == "while":
            trips = self.trips(name, one)
            often = 1 if trips is None else trips
            yield one.attribute("body"), often, trips is not None
            yield one.attribute("condition"), often + 1, trips is not None
        elif not one.opcode.endswith(("-done", "-update")):  # what was started counts once
            branches = _BRANCHES.search(one.attributes)
            names = _OPERAND.findall(branches[1]) if branches else []
            for callee in [*_CALLED.findall(one.attributes), *names]:
                yield callee, 1, one.opcode != "conditional"

    def trips(self, name: str, loop: Instruction) -> int | None:
        """How often a loop of that computation runs its body; None if the text does not say.

        Where no pass of the compiler noted it, from the condition: a number that starts at a
        constant and grows by one is compared with another.
        """
        known = _KNOWN_TRIPS.search(loop.attributes)
        if known:
            return int(known[1])
        condition, body = loop.attribute("condition"), loop.attribute("body")
        compared = self._compared(condition)
        if compared is None:
            return None
        (left, right), direction = compared
        if isinstance(right, Element) and self._step(body, right.place) != 0:
            left, right, direction = right, left, _TURNED[direction]
        if not isinstance(left, Element):
            return None
        first, step = self._first(name, loop, left.place), self._step(body, left.place)
        if isinstance(right, Element):  # a bound that the loop carries unchanged
            start = self._first(name, loop, right.place)
            right = None if start is None else start + right.plus
        if first is None or step is None or right is None:
            return None
        return _count(first + left.plus, right, step, direction)

    def _compared(self, condition: str) -> tuple[tuple[Scalar, Scalar], str] | None:
        """What a condition compares, and how."""
        root, operands = self.root(condition), None
        if root is not None and root.opcode == "fusion":
            operands = [self._value(condition, each) for each in root.operands]
            condition = root.attribute("calls")
            root = self.root(condition)
        if root is None or root.opcode != "compare":
            return None
        given = _bound(operands)
        left, right = (self._value(condition, each, given) for each in root.operands)
        return (left, right), root.attribute("direction")

    def _first(self, name: str, loop: Instruction, place: int) -> int | None:
        """What stands at a place of the tuple that a loop starts with."""
        start = self.computations[name].get(loop.operands[0])
        if start is None or start.opcode != "tuple":
            return None
        found = self._value(name, start.operands[place])
        return found if isinstance(found, int) else None

    def _step(self, body: str, place: int) -> int | None:
        """What a body adds to the number at a place of its tuple."""
        end = self.root(body)
        if end is None or end.opcode != "tuple":
            return None
        found = self._value(body, end.operands[place])
        return found.plus if isinstance(found, Element) and found.place == place else None

    def _value(
        self, computation: str, name: str, given: Callable[[int], Scalar] | None = None
    ) -> Scalar:
        """The scalar of that name, as far as the text says; `given` are the parameters' values."""
        one = self.computations[computation].get(name)
        if one is None:
            return None
        read = functools.partial(self._value, computation, given=given)
        if one.opcode == "constant":
            return int(one.operands[0]) if re.fullmatch(r"-?\d+", one.operands[0]) else None
        if one.opcode == "parameter":
            return given(int(one.operands[0])) if given else None
        if one.opcode == "get-tuple-element":
            source = self.computations[computation].get(one.operands[0])
            carried = source is not None and source.opcode == "parameter" and given is None
            return Element(int(one.attribute("index"))) if carried else None
        if one.opcode == "fusion":
            callee, operands = one.attribute("calls"), [read(each) for each in one.operands]
            root = self.root(callee)
            return None if root is None else self._value(callee, root.name, _bound(operands))
        if one.opcode in _FREE:
            return read(one.operands[0])
        if one.opcode in ("add", "subtract"):
            a, b = map(read, one.operands)
            return _sum(a, b, 1 if one.opcode == "add" else -1)
        return None


def _bound(operands: list[Scalar] | None) -> Callable[[int], Scalar] | None:
    """Parameters of a fused computation: the operands of the fusion."""
    return None if operands is None else operands.__getitem__


def _sum(a: Scalar, b: Scalar, sign: int) -> Scalar:
    if isinstance(a, int) and isinstance(b, Element) and sign > 0:
        a, b = b, a
    if not isinstance(b, int) or a is None:
        return None
    return a + sign * b if isinstance(a, int) else Element(a.place, a.plus + sign * b)


def _count(first: int, last: int, step: int, direction: str) -> int | None:
    """How many of first, first + step, ... come before the comparison with `last` fails."""
    if direction in ("GT", "GE"):  # counts down: the same with every sign turned
        first, last, step, direction = -first, -last, -step, _TURNED[direction]
    if direction == "NE":
        whole = step != 0 and (last - first) % step == 0 and (last - first) // step >= 0
        return (last - first) // step if whole else None
    if step <= 0 or direction not in ("LT", "LE"):
        return None
    return max(0, -(-(last + (direction == "LE") - first) // step))


def _instruction(line: str) -> Instruction | None:
    named = _NAME.match(line)
    if not named:
        return None
    rest = line[named.end() :]
    end = _closing(rest) + 1 if rest.startswith("(") else rest.find(" ")
    opcode = _OPCODE.match(rest, end)
    if end <= 0 or not opcode:
        return None
    inside_end = _closing(rest, opcode.end() - 1)
    inside = rest[opcode.end() : inside_end]
    names = tuple(_OPERAND.findall(inside)) or (inside,) * bool(inside)
    attributes = rest[inside_end + 1 :]
    return Instruction(named[2], rest[:end], opcode[1], names, attributes, bool(named[1]))


def _closing(text: str, start: int = 0) -> int:
    """Where the bracket that opens at `start` closes."""
    depth = 0
    for i in range(start, len(text)):
        depth += (text[i] == "(") - (text[i] == ")")
        if depth == 0:
            return i
    return len(text)


def elements(type: str) -> list[str]:
    """The types in a tuple's type; one alone if it is none."""
    if not type.startswith("("):
        return [type]
    found, depth, start = [], 0, 1
    for i, letter in enumerate(type):
        depth += (letter in "({[") - (letter in ")}]")
        if depth == 1 and letter == "," or depth == 0:
            found.append(type[start:i].strip())
            start = i + 1
    return [re.sub(r"^/\*[^*]*\*/\s*", "", each) for each in found if each]
