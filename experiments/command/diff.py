"""`diff`: the fields in which two experiments differ."""

import ast
import os
import pathlib
from collections.abc import Sequence

from experiments.command.contract import Command
from experiments.command.flags import Given
from experiments.select import parse_name, resolve
from experiments.text import columns, written
from moe import fields, files, registry
from moe.registry import Mistake

# What Python raises for a text that is none; the last two for one that is nested too deep.
_NO_RECORD = (SyntaxError, ValueError, AttributeError, IndexError, TypeError)
_NO_RECORD += (RecursionError, MemoryError)


def act(words: Sequence[str], given: Given) -> None:
    """Prints the fields that differ."""
    print(difference(words[0], words[1], given.size))


def difference(first: str, second: str, size: str) -> str:
    """The fields that differ between two experiments, each a STUDY/ARM or a run's folder."""
    left, right = _fields_named(first, size), _fields_named(second, size)
    absent = object()
    rows = [
        (path, *(written(side[path]) if path in side else "-" for side in (left, right)))
        for path in {**left, **right}
        if left.get(path, absent) != right.get(path, absent)
    ]
    if not rows:
        return "no field differs"
    return "\n".join(columns([("field", first, second), *rows], left=(0, 1, 2)))


def _fields_named(name: str, size: str) -> dict[str, object]:
    folder = files.place(name, f"diff {name}")
    record = folder / "experiment.txt"
    if os.path.lexists(record):
        return recorded(record)
    if folder.is_dir():
        raise Mistake(f"diff {name}: has no experiment.txt; name a folder ARM/seedN of a run")
    known = registry.names("study")
    if name.partition("/")[0] not in known:
        raise Mistake(f"diff {name}: {registry.no_such('study or folder', name, known)}")
    study, arms = parse_name(name)
    if arms is None:
        raise Mistake(f"diff {name}: must be STUDY/ARM or the folder of a run")
    return fields.fields(resolve(study, arms, size, ())[arms[0]])


def recorded(record: pathlib.Path) -> dict[str, object]:
    """The fields in an experiment.txt, as `registry.fields` gives them; runs none of its code."""
    leaves, text = {}, files.text(record)

    def collect(call: ast.Call, prefix: str) -> None:
        if call.args or not isinstance(call.func, ast.Name):
            raise Mistake("a call that is no record")
        for keyword in call.keywords:
            path, value = prefix + keyword.arg, keyword.value
            if not isinstance(value, ast.Call):
                leaves[path] = ast.literal_eval(value)
            elif value.func.id == "float":
                leaves[path] = float(value.args[0].value)
            else:
                leaves[path] = value.func.id
                collect(value, path + ".")

    try:
        collect(ast.parse(text).body[-1].value, "")
    except _NO_RECORD as error:
        why = files.words(error) or type(error).__name__
        raise Mistake(f"{record}: is not the record of an experiment ({why})") from error
    return leaves


COMMAND = Command(
    words="A B",
    act=act,
    flags=("size",),
    examples=(
        "dense_topk_hash/top1 dense_topk_hash/hash_random",
        "runs/first/top1/seed0 dense_topk_hash/top1",
    ),
)
