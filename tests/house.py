"""How the checks of the house read code: who imports whom, what is too long, who argues for it."""

import ast
import dataclasses
import pathlib
from collections.abc import Iterable, Iterator

FILE_LINES, FUNCTION_LINES, PARAMETERS = 300, 60, 5
ARGUED = "Over budget:"  # begins the line of a docstring that says why


def name_of(path: pathlib.Path) -> str:
    """The dotted name of a module, by its path from the root."""
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(tree: ast.Module, modules: Iterable[str]) -> set[str]:
    """Which of the modules a file imports, also inside functions, but not for type checkers."""
    found, known = set(), set(modules)
    skipped = {id(n) for node in ast.walk(tree) if _for_types(node) for n in ast.walk(node)}
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in known else node.module)
    return found & known


def _for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"


def packages(tree: ast.Module) -> set[str]:
    """The top packages that a file imports."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(node.module.split(".")[0])
    return found


def room(module: str, rooms: Iterable[str]) -> str:
    """The room of a module: the longest listed name that it is, or lies in."""
    fitting = [r for r in rooms if module == r or module.startswith(f"{r}.")]
    return max(fitting, key=len, default=module)


def circles(arrows: dict[str, set[str]]) -> list[list[str]]:
    """Sets of two and more that reach each other, each sorted."""
    reached = {start: _reached(start, arrows) for start in arrows}
    found = {
        tuple(sorted(b for b in reached[a] if a in reached.get(b, ())))
        for a in arrows
        if a in reached[a]
    }
    return [list(circle) for circle in sorted(found) if len(circle) > 1]


def _reached(start: str, arrows: dict[str, set[str]]) -> set[str]:
    found, todo = set(), [start]
    while todo:
        for other in arrows.get(todo.pop(), ()):
            if other not in found:
                found.add(other)
                todo.append(other)
    return found


def argued(node: ast.AST) -> bool:
    """Whether the docstring argues for being over budget."""
    return any(line.startswith(ARGUED) for line in (ast.get_docstring(node) or "").splitlines())


@dataclasses.dataclass(frozen=True)
class Function:
    """A function, and the class that it is a method of."""

    node: ast.FunctionDef | ast.AsyncFunctionDef
    owner: str

    @property
    def lines(self) -> int:
        """From its `def` to its end."""
        return self.node.end_lineno - self.node.lineno + 1

    @property
    def parameters(self) -> int:
        """Without self and cls."""
        a = self.node.args
        names = [arg.arg for arg in (*a.posonlyargs, *a.args, *a.kwonlyargs)]
        return len([name for name in names if name not in ("self", "cls")])


def functions(tree: ast.AST, owner: str = "") -> Iterator[Function]:
    """Every function of a file, those inside others too."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield Function(node, owner)
            yield from functions(node)
        else:
            yield from functions(node, node.name if isinstance(node, ast.ClassDef) else owner)


class Contracts:
    """Which methods a contract argues for; those that implement it need not say it again."""

    def __init__(self, trees: Iterable[ast.Module]):
        self._bases: dict[str, set[str]] = {}
        self._argued: set[tuple[str, str]] = set()
        for tree in trees:
            for node in ast.walk(tree):
                if isinstance(node, ast.ClassDef):
                    names = {getattr(b, "id", getattr(b, "attr", "")) for b in node.bases}
                    self._bases.setdefault(node.name, set()).update(names)
            for function in functions(tree):
                if argued(function.node):
                    self._argued.add((function.owner, function.node.name))

    def argues(self, function: Function) -> bool:
        """Whether the function, or the method that it implements, says why."""
        owners = {function.owner} | _reached(function.owner, self._bases)
        name = function.node.name
        return argued(function.node) or any((o, name) in self._argued for o in owners - {""})


def over_budget(source: str, contracts: Contracts | None = None) -> list[str]:
    """Names what is too long, or takes too much, and is not argued for."""
    tree, lines = ast.parse(source), len(source.splitlines())
    contracts = contracts or Contracts([tree])
    found = []
    if lines > FILE_LINES and not argued(tree):
        found.append(f"the file has {lines} lines, over {FILE_LINES}")
    for function in functions(tree):
        if contracts.argues(function):
            continue
        name = function.node.name
        if function.lines > FUNCTION_LINES:
            found.append(f"{name} has {function.lines} lines, over {FUNCTION_LINES}")
        if function.parameters > PARAMETERS:
            found.append(f"{name} has {function.parameters} parameters, over {PARAMETERS}")
    return found
