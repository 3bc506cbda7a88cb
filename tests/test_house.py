"""The walls of the house: who may import whom, no circles, sizes of files and functions, names."""

import ast
import os
import pathlib
import shutil
import subprocess
import sys

import jax
import pytest

from tests import house

ROOT = pathlib.Path(__file__).parent.parent
PACKAGES = ("moe", "configs", "experiments", "launch", "moe_experiments")
FILES = [p.relative_to(ROOT) for name in PACKAGES for p in sorted((ROOT / name).rglob("*.py"))]
TESTS = [p.relative_to(ROOT) for p in sorted((ROOT / "tests").rglob("*.py"))]

# Imports point one way: moe <- configs <- experiments <- notebooks, and launch starts the command.
FOREIGN = {
    "moe": {"configs", "experiments", "launch", "moe_experiments", "notebooks", "tests"},
    "configs": {"experiments", "launch", "moe_experiments", "notebooks", "tests"},
    "experiments": {"launch", "moe_experiments", "notebooks", "tests"},
    "launch": {"moe", "configs", "experiments", "moe_experiments", "notebooks", "tests"},
    "moe_experiments": {"moe", "configs", "experiments", "launch", "notebooks", "tests"},
}
# Room -> the rooms of its own package that it may import. The ground imports only what is named.
GROUND = {"moe.registry", "moe.fields", "moe.files", "moe.params", "moe.plan", "moe.environment"}
MAY = {
    "moe": set(),
    "moe.registry": set(),
    "moe.fields": {"moe.registry"},
    "moe.files": {"moe.registry"},
    "moe.params": {"moe.registry"},
    "moe.plan": {"moe.registry", "moe.fields"},
    "moe.environment": {"moe"},
    "moe.order": GROUND,
    "moe.optimizer": GROUND,
    "moe.devices": GROUND,
    "moe.experts": GROUND,
    "moe.kernels": GROUND,
    "moe.data": GROUND,
    "moe.routers": GROUND | {"moe.devices", "moe.order", "moe.data"},
    "moe.dispatch": GROUND | {"moe.devices", "moe.order", "moe.experts", "moe.kernels"},
    "moe.model": GROUND
    | {"moe.devices", "moe.order", "moe.experts", "moe.kernels", "moe.routers", "moe.dispatch"}
    | {"moe.data"},
    "moe.experiment": GROUND | {"moe.data", "moe.optimizer", "moe.routers", "moe.model"},
    "moe.checkpoint": GROUND | {"moe.devices"},
    "moe.convert": GROUND | {"moe.routers", "moe.model", "moe.experiment"},
    "moe.analysis": GROUND | {"moe.data", "moe.routers", "moe.model", "moe.experiment"},
    "moe.cost": GROUND | {"moe.devices", "moe.routers", "moe.model", "moe.experiment"},
    "moe.decode": GROUND | {"moe.dispatch", "moe.model", "moe.experiment"},
    "moe.training": GROUND
    | {"moe.data", "moe.devices", "moe.routers", "moe.model", "moe.experiment"}
    | {"moe.checkpoint", "moe.analysis", "moe.cost"},
    "experiments": set(),
    "experiments.text": set(),
    "experiments.studies": set(),
    "experiments.select": {"experiments.studies"},
    "experiments.results": {"experiments.studies", "experiments.text"},
    "experiments.runner": {"experiments.select", "experiments.studies", "experiments.results"}
    | {"experiments.text"},
    "experiments.figures": {"experiments.results", "experiments.studies", "experiments.text"},
    "experiments.explorer": {"experiments.results", "experiments.studies", "experiments.text"}
    | {"experiments.figures"},
    "experiments.report": {"experiments.results", "experiments.studies", "experiments.text"}
    | {"experiments.figures"},
    "experiments.bench": {"experiments.select", "experiments.studies", "experiments.text"}
    | {"experiments.results", "experiments.runner", "experiments.figures"},
    "experiments.command": {"experiments.select", "experiments.studies", "experiments.text"}
    | {"experiments.results", "experiments.runner", "experiments.report", "experiments.bench"}
    | {"experiments.explorer"},
    "experiments.__main__": {"experiments.command", "experiments.runner", "experiments.text"},
    "configs": set(),
    "launch": set(),
    "moe_experiments": set(),
}
AT_ROOT = {"moe": 10, "experiments": 5}  # files, at most

each_file = pytest.mark.parametrize("path", FILES, ids=str)


def text(path):
    return (ROOT / path).read_text("utf-8")


@pytest.fixture(scope="module")
def arrows():
    """Module -> the modules of ours that it imports."""
    trees = {house.name_of(path): ast.parse(text(path)) for path in FILES}
    return {module: house.imports(tree, trees) - {module} for module, tree in trees.items()}


@pytest.fixture(scope="module")
def contracts():
    return house.Contracts(ast.parse(text(path)) for path in [*FILES, *TESTS])


def between_rooms(arrows):
    """(importer, imported), of different rooms, where a package only names things."""
    found = {}
    for module, others in arrows.items():
        here = house.room(module, MAY)
        there = {house.room(other, MAY) for other in others} - {here}
        found.setdefault(here, set()).update(there)
    return found


def loaded_after(statement, watched):
    """Which of the watched packages a fresh interpreter holds after the statement."""
    code = f"import sys\n{statement}\nprint(*({watched!r} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_there_are_files_to_check():
    assert {path.parts[0] for path in FILES} == set(PACKAGES)


@each_file
def test_packages_point_one_way(path):
    assert not house.packages(ast.parse(text(path))) & FOREIGN[path.parts[0]]


def test_every_room_is_listed(arrows):
    rooms = {house.room(module, MAY) for module in arrows}
    assert rooms == {room for room in MAY if any(house.room(m, MAY) == room for m in arrows)}
    assert not [module for module in arrows if house.room(module, MAY) not in MAY]


def test_rooms_import_what_they_may(arrows):
    wrong = [
        f"{here} imports {there}"
        for here, others in between_rooms(arrows).items()
        for there in sorted(others)
        if there.split(".")[0] == here.split(".")[0] and there not in MAY[here]
    ]
    assert not wrong


def test_no_two_files_and_no_two_rooms_import_each_other(arrows):
    assert not house.circles(arrows)
    assert not house.circles(between_rooms(arrows))


@pytest.mark.parametrize("package", AT_ROOT)
def test_few_files_lie_at_a_root(package):
    there = [p.name for p in (ROOT / package).iterdir() if p.is_file()]
    assert len(there) <= AT_ROOT[package], there


@pytest.mark.parametrize("path", [*FILES, *TESTS], ids=str)
def test_sizes_stay_in_the_budget(path, contracts):
    assert not house.over_budget(text(path), contracts)


@each_file
def test_every_module_says_what_it_is(path):
    assert ast.get_docstring(ast.parse(text(path))), "needs a module docstring"


@each_file
def test_no_file_is_named_for_leftovers(path):
    assert path.stem not in {"util", "utils", "helper", "helpers", "manager", "factory", "common"}


def test_the_budget_can_be_exceeded():
    long = "def f():\n" + "    x = 1\n" * 60  # 1 + 60 = 61 lines
    assert house.over_budget(long) == ["f has 61 lines, over 60"]
    reason = 'f():\n    """One.\n\n    Over budget: x."""\n'
    assert not house.over_budget(long.replace("f():\n", reason))
    assert house.over_budget("x = 1\n" * 301) == ["the file has 301 lines, over 300"]
    many = "class A(B):\n    def f(self, a, b, c, d, e, *, g): pass\n"
    assert house.over_budget(many) == ["f has 6 parameters, over 5"]
    contract = f"class B:\n    def f(self):\n        {reason[5:].strip()}\n"
    assert not house.over_budget(contract + many)


def test_imports_are_seen():
    tree = ast.parse(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import z.t\n"
        "def f():\n    from a.b import c, d\n    import e.g\n"
    )
    assert house.imports(tree, {"a.b", "a.b.c", "e.g", "z.t"}) == {"a.b", "a.b.c", "e.g"}
    assert house.packages(tree) == {"typing", "a", "e", "z"}
    assert house.room("a.b.c", {"a", "a.b", "a.bc"}) == "a.b"
    assert house.circles({"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set()}) == [["a", "b", "c"]]
    assert not house.circles({"a": {"b", "c"}, "b": {"c"}, "c": set()})


def test_importing_the_library_loads_no_data_library():
    modules = [
        house.name_of(path)
        for path in FILES
        if path.parts[0] == "moe" and ("data" not in path.parts[:-1] or path.stem == "__init__")
    ]
    statement = "import " + ", ".join(sorted(modules))
    watched = {"tensorflow", "tensorflow_datasets", "grain", "tokenizers", "matplotlib", "pyarrow"}
    assert not loaded_after(statement, watched)


def test_the_packages_that_name_things_load_no_jax():
    statement = (
        "from moe import registry\nfor kind in registry.HOMES:\n    assert registry.names(kind)"
    )
    assert not loaded_after(statement, {"jax", "flax", "numpy"})


@pytest.mark.multi_device
def test_there_are_eight_devices():
    assert jax.device_count() == 8


@pytest.mark.slow
@pytest.mark.parametrize(("ci", "outcome"), [("1", "2 failed, 1 skipped"), ("", "3 skipped")])
def test_a_marked_test_that_skips_fails_in_ci_only(ci, outcome, tmp_path):
    shutil.copy(ROOT / "tests" / "conftest.py", tmp_path)
    (tmp_path / "test_skips.py").write_text(
        "import pytest\n\n"
        "@pytest.mark.multi_device\ndef test_many():\n    pytest.skip('too few devices')\n\n"
        "@pytest.mark.browser\ndef test_page():\n    pytest.skip('no chromium')\n\n"
        "def test_any():\n    pytest.skip('no reason')\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-c", ROOT / "pyproject.toml", tmp_path],
        capture_output=True,
        text=True,
        env={**os.environ, "CI": ci},
        cwd=tmp_path,
    )
    assert outcome in done.stdout.splitlines()[-1]
    assert done.returncode == (1 if ci else 0)
