"""A tree of frozen dataclasses: typed changes by dotted path, its expression, ranges of its fields.

A range stands in the annotation of a field, as `Annotated[int, AtLeast(1)]`, and `check_fields`
reads them all; what holds between fields a part says itself, in `check`. The standard library only.
"""

import dataclasses
import math
import numbers
import re
import sys
import types
import typing

from moe.registry import Mistake, entry, load, no_such

_SCALARS = {bool: "true or false", int: "an int", float: "a number", str: "a text"}
_NUMBERS = {int: numbers.Integral, float: numbers.Real}
_LOOKS = re.compile(r"^ *(log_every|eval_every|max_epochs|allow_noncausal)=.*\n", re.MULTILINE)
# Younger fields, at the value that says what was before them.
_THEN = (r"gate_norm=False", r"loss_weight=1\.0", r"priority=ChoiceMajor\(\)", r"weigh='score'")
_THEN += (r"eval_capacity_factor=None", r"token_vectors=None")
_LATER = re.compile(rf"^ *({'|'.join(_THEN)}),\n", re.MULTILINE)


@dataclasses.dataclass(frozen=True)
class AtLeast:
    """Finite and no less than `low`."""

    low: float
    note: str = ""
    sign: typing.ClassVar[str] = ">="

    def allows(self, value) -> bool:
        """Whether the value is in the range."""
        return self.low <= value < math.inf

    def rule(self, kind: type) -> str:
        """What stands after "must be"."""
        note = f" ({self.note})" if self.note else ""
        return "a number " * (kind is float) + f"{self.sign} {self.low:g}{note}"


class Above(AtLeast):
    """Finite and more than `low`."""

    sign = ">"

    def allows(self, value) -> bool:
        return self.low < value < math.inf


@dataclasses.dataclass(frozen=True)
class Within:
    """Between two numbers; `ends` says by brackets whether they belong to it."""

    low: float
    high: float
    ends: str = "[]"

    def allows(self, value) -> bool:
        """Whether the value is in the range."""
        above = self.low <= value if self.ends[0] == "[" else self.low < value
        return above and (value <= self.high if self.ends[1] == "]" else value < self.high)

    def rule(self, kind: type) -> str:
        """What stands after "must be"."""
        large = kind is int and self.high >= 2**16
        high = f"2^{math.log2(self.high):g}" if large else f"{self.high:g}"
        return f"in {self.ends[0]}{self.low:g}, {high}{self.ends[1]}"


def check_fields(tree: typing.Any, path: str) -> None:
    """Raises Mistake, one line, for the first field whose annotation does not allow its value.

    A class that changes a default keeps the ranges of the class above it.

    Args:
      path: where the tree stands; "" for an experiment.
    """
    for field in _fields_of(tree):
        value, where = getattr(tree, field.name), f"{path}.{field.name}".lstrip(".")
        if _is_node(value):
            check_fields(value, where)
            continue
        for owner in _owners(tree, field.name):
            check_value(_hint(owner, field.name, ranges=True), value, where)


def check_value(annotation: typing.Any, value: typing.Any, where: str) -> None:
    """Raises Mistake, one line, unless an annotation allows the value, and int32 or float32 do."""
    members = typing.get_args(annotation) if _is_union(annotation) else (annotation,)
    members, optional = [m for m in members if m is not type(None)], type(None) in members
    if len(members) > 1 or (optional and value is None):
        return
    kind, ranges = members[0], ()
    if typing.get_origin(kind) is typing.Annotated:
        kind, *ranges = typing.get_args(kind)
    either = " or none" * optional
    if typing.get_origin(kind) is typing.Literal and value not in typing.get_args(kind):
        valid = map(str, typing.get_args(kind))
        raise Mistake(f"{where}={value}: {no_such('value', str(value), valid)}")
    if kind in _NUMBERS and not isinstance(value, _NUMBERS[kind]):
        raise Mistake(f"{where}={value}: must be {_SCALARS[kind]}{either}")
    for each in ranges:
        if not each.allows(value):
            raise Mistake(f"{where}={value}: must be {each.rule(kind)}{either}")
    if kind is int and abs(value) >= 2**31 and not any(hasattr(each, "high") for each in ranges):
        raise Mistake(f"{where}={value}: must be between -2**31 and 2**31")
    if kind is float and 0 < abs(value) < math.inf and not 2.0**-126 <= abs(value) < 2.0**128:
        raise Mistake(f"{where}={value}: must be 0 or in size a float32, from 2**-126 to 2**128")
    if typing.get_origin(kind) is tuple and isinstance(value, tuple):
        for item in value:
            check_value(typing.get_args(kind)[0], item, where)


class MissingField(Mistake):
    """The tree has no field at this path: another arm of the same study may have it."""


def override(tree: typing.Any, path: str, text: str) -> typing.Any:
    """The tree with the field at a dotted path replaced by the text, read as its annotation says.

    A field whose annotation has a `kind` takes a registered name, an optional one takes `none`.
    Raises MissingField where the tree has no such path, Mistake where the text does not fit.
    """
    return _replaced(tree, path.split("."), 0, text)


def fields(tree: typing.Any, prefix: str = "") -> dict[str, object]:
    """Dotted path -> value of every leaf; a nested dataclass stands before its leaves by name."""
    leaves = {}
    for field in _fields_of(tree):
        value, path = getattr(tree, field.name), prefix + field.name
        if _is_node(value):
            leaves |= {path: type(value).__name__, **fields(value, path + ".")}
        else:
            leaves[path] = value
    return leaves


def expression(tree: typing.Any) -> str:
    """Import lines, an empty line and the Python expression that rebuilds the tree from them.

    Every field is written, so the record outlives a change of defaults.
    Raises TypeError for a leaf that has no literal.
    """
    imports: dict[str, str] = {}
    body = _rendered(tree, "", imports)
    modules: dict[str, list[str]] = {}
    for name, module in sorted(imports.items()):
        modules.setdefault(module, []).append(name)
    lines = [f"from {module} import {', '.join(modules[module])}" for module in sorted(modules)]
    return "\n".join([*lines, "", body, ""])


def identity(text: str) -> str:
    """What makes an experiment itself, of the text that `expression` wrote: classes and fields.

    Not part of it: where a class lies; how often a run is logged and evaluated, what it is allowed;
    fields that older records lack, at the value they had.
    """
    return _LATER.sub("", _LOOKS.sub("", text.partition("\n\n")[2] or text))


def _is_node(value) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def _fields_of(node) -> list[dataclasses.Field]:
    """The fields that the constructor takes; `parent` and `name` of a Linen module are not ours."""
    hidden = {"parent", "name"} if hasattr(node, "clone") else set()
    return [f for f in dataclasses.fields(node) if f.init and f.name not in hidden]


def _replaced(node, names_on_path: list[str], depth: int, text: str):
    path, here = ".".join(names_on_path), ".".join(names_on_path[:depth])
    where, name = f"{path}={text}", names_on_path[depth]
    if not _is_node(node):
        kind = "none" if node is None else f"of type {type(node).__name__}"
        raise MissingField(f"{where}: {here} is {kind} and has no fields")
    known = {field.name: field for field in _fields_of(node)}
    if name not in known:
        raise MissingField(f"{where}: {no_such('field', name, known)}")
    if depth + 1 < len(names_on_path):
        value = _replaced(getattr(node, name), names_on_path, depth + 1, text)
    else:
        value = _read(_annotation(node, known[name]), text, where)
    if hasattr(node, "clone"):
        return node.clone(**{name: value})
    return dataclasses.replace(node, **{name: value})


def _is_union(annotation) -> bool:
    return typing.get_origin(annotation) in (typing.Union, types.UnionType)


def _annotation(node, field: dataclasses.Field):
    """The annotation of a field as an object, without its ranges."""
    return _hint(_owners(node, field.name)[0], field.name)


def _owners(node, name: str) -> list[type]:
    """The classes that annotate a field, the nearest one first."""
    return [c for c in type(node).__mro__ if name in c.__dict__.get("__annotations__", {})]


def _hint(owner: type, name: str, ranges: bool = False):
    """What a class annotates a field with, also where its module postpones annotations."""
    holder = types.SimpleNamespace(__annotations__={name: owner.__annotations__[name]})
    scope = {**vars(sys.modules[owner.__module__]), **vars(owner)}
    return typing.get_type_hints(holder, globalns=scope, include_extras=ranges)[name]


def _read(annotation, text: str, where: str, optional: bool = False):
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if _is_union(annotation):
        return _read_union(annotation, text, where)
    if origin is typing.Literal:
        values = {str(value): value for value in arguments}
        if text not in values:
            raise Mistake(f"{where}: {no_such('value', text, [*values, *['none'] * optional])}")
        return values[text]
    if origin is tuple and arguments[1:] == (Ellipsis,):
        return _read_tuple(arguments[0], text, where, optional)
    if annotation in _SCALARS:
        try:
            return _read_scalar(annotation, text.strip())
        except ValueError:
            rule = _SCALARS[annotation] + " or none" * optional
            raise Mistake(f"{where}: must be {rule}") from None
    if isinstance(getattr(annotation, "kind", None), str):
        return load(entry(annotation.kind, text, where, optional))
    if dataclasses.is_dataclass(annotation):
        inside = ", ".join(field.name for field in _fields_of(annotation))
        choice = "must be none, or" if optional else "has fields;"
        raise Mistake(f"{where}: {choice} set one of its fields ({inside})")
    raise Mistake(f"{where}: has no text form, so it can only be set from Python")


def _read_union(annotation, text: str, where: str):
    members = [member for member in typing.get_args(annotation) if member is not type(None)]
    optional = len(members) < len(typing.get_args(annotation))
    if optional and text.strip().lower() == "none":
        return None
    for member in members[:-1]:
        try:
            return _read(member, text, where, optional)
        except Mistake:
            continue
    return _read(members[-1], text, where, optional)


def _read_tuple(element, text: str, where: str, optional: bool) -> tuple:
    inside = text.strip()
    if inside[:1] == "(" and inside[-1:] == ")":
        inside = inside[1:-1]
    parts = inside.split(",")
    if not parts[-1].strip():  # "1," and "()"
        parts.pop()
    try:
        return tuple(_read(element, part, where) for part in parts)
    except ValueError:
        wanted = {int: "ints", float: "numbers"}.get(element, "values")
        rule = f"must be {wanted} separated by commas, such as 1,3" + " or none" * optional
        raise Mistake(f"{where}: {rule}") from None


def _read_scalar(annotation, text: str):
    if annotation is bool:
        if text.lower() not in ("true", "false"):
            raise ValueError(text)
        return text.lower() == "true"
    value = annotation(text)
    small = not value and set(text.lower().partition("e")[0]) & set("123456789")
    if annotation is float and (math.isnan(value) or small):
        raise ValueError(text)  # never equal to itself: no static argument of jit; or 0 unasked
    return value


def _rendered(value, indent: str, imports: dict[str, str]) -> str:
    if _is_node(value):
        name, module = type(value).__qualname__, type(value).__module__
        if imports.setdefault(name, module) != module:
            raise TypeError(f"two classes named {name}: {imports[name]} and {module}")
        inner = indent + "    "
        lines = [
            f"{inner}{field.name}={_rendered(getattr(value, field.name), inner, imports)},\n"
            for field in _fields_of(value)
        ]
        return f"{name}(\n{''.join(lines)}{indent})" if lines else f"{name}()"
    if isinstance(value, tuple):
        inside = ", ".join(_rendered(item, indent, imports) for item in value)
        return f"({inside},)" if len(value) == 1 else f"({inside})"
    if type(value) is float and math.isinf(value):
        return f"float('{value}')"
    if value is None or (type(value) in _SCALARS and value == value):
        return repr(value)
    raise TypeError(f"{value!r} of type {type(value).__name__} has no literal")
