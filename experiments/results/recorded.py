"""An experiment again from the expression that its run saved; nothing of it is executed."""

import ast
import importlib
import pathlib
import pkgutil
import re
from typing import Any

import moe
from moe import files
from moe.registry import Mistake


def experiment(text: str, called: str) -> Any:
    """The experiment that `moe.fields.expression` wrote; fields that came later have their default.

    A class is sought where the text says, and by its name where it has moved since.
    Raises Mistake, one line that begins with `called`, for a text that is no such expression.
    """
    from moe.experiment import Experiment

    try:
        tree = ast.parse(text)
        places = {
            alias.name: str(line.module)
            for line in tree.body
            if isinstance(line, ast.ImportFrom)
            for alias in line.names
        }
        last = tree.body[-1]
        if not isinstance(last, ast.Expr):
            raise ValueError("it ends in no expression")
        found = _value(last.value, places)
        if isinstance(found, Experiment):
            return found
        raise ValueError("it is none")
    except (SyntaxError, ValueError, AttributeError, IndexError, TypeError) as error:
        why = files.words(error) or type(error).__name__
    except (RecursionError, MemoryError):
        why = "nested too deep"
    raise Mistake(f"{called}: is not the record of an experiment ({why})")


def _value(node: ast.expr, places: dict[str, str]) -> Any:
    if isinstance(node, ast.Tuple):
        return tuple(_value(item, places) for item in node.elts)
    if not isinstance(node, ast.Call):
        return ast.literal_eval(node)
    if not isinstance(node.func, ast.Name) or any(k.arg is None for k in node.keywords):
        raise ValueError("a call that is no record")
    if node.func.id == "float":
        return float(ast.literal_eval(node.args[0]))
    if node.args:
        raise ValueError("a call that is no record")
    found = _class(node.func.id, places)
    return found(**{str(k.arg): _value(k.value, places) for k in node.keywords})


def _class(name: str, places: dict[str, str]) -> type:
    """The class of that name, one of this library's; raises ValueError where there is none."""
    said = places.get(name, "")
    for module in (said, *_with_class(name)):
        if not re.fullmatch(r"moe(\.\w+)+", module):
            continue
        try:
            found = getattr(importlib.import_module(module), name, None)
        except ModuleNotFoundError:
            continue
        if isinstance(found, type):
            return found
    raise ValueError(f"there is no class {name} in this version")


def _with_class(name: str) -> list[str]:
    """The modules of the library that define a class of that name."""
    defined = re.compile(rf"^class {re.escape(name)}\b", re.MULTILINE)
    root, found = pathlib.Path(str(moe.__file__)).parent, []
    for module in pkgutil.walk_packages([str(root)], "moe."):
        path = root.joinpath(*module.name.split(".")[1:]).with_suffix(".py")
        if path.is_file() and defined.search(path.read_text("utf-8")):
            found.append(module.name)
    return found
