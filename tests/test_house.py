"""The walls of the house: sizes of files and functions, names, and which way imports point."""

import ast
import os
import pathlib
import shutil
import subprocess
import sys

import jax
import pytest

ROOT = pathlib.Path(__file__).parent.parent
PACKAGES = ("moe", "configs", "experiments", "launch")
FORBIDDEN = {  # imports point one way: moe <- configs <- experiments <- notebooks
    "moe": {"configs", "experiments", "notebooks", "tests"},
    "configs": {"experiments", "notebooks", "tests"},
    "experiments": {"notebooks", "tests"},
    "launch": {"moe", "configs", "experiments", "notebooks", "tests"},  # it starts the command
}
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
FILE_LINES, FUNCTION_LINES = 300, 60

each_file = pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))


def argued(node) -> bool:
    """Whether the docstring has a line that starts with "Over budget:"."""
    lines = (ast.get_docstring(node) or "").splitlines()
    return any(line.startswith("Over budget:") for line in lines)


def over_budget(source: str) -> list[str]:
    """Names what is too long and not argued for."""
    tree = ast.parse(source)
    found = []
    if len(source.splitlines()) > FILE_LINES and not argued(tree):
        found.append(f"the file has {len(source.splitlines())} lines, over {FILE_LINES}")
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = node.end_lineno - node.lineno + 1
            if lines > FUNCTION_LINES and not argued(node):
                found.append(f"{node.name} has {lines} lines, over {FUNCTION_LINES}")
    return found


def imported(source: str) -> set[str]:
    """The top packages that a file imports, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(node.module.split(".")[0])
    return found


def loaded_after(statement: str, watched: set[str]) -> set[str]:
    """Which of the watched packages a fresh interpreter holds after the statement."""
    code = f"import sys\n{statement}\nprint(*({watched!r} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_there_are_files_to_check():
    assert {path.relative_to(ROOT).parts[0] for path in FILES} == set(PACKAGES)


@each_file
def test_sizes_stay_in_the_budget(path):
    assert not over_budget(path.read_text("utf-8"))


@each_file
def test_every_module_says_what_it_is(path):
    assert ast.get_docstring(ast.parse(path.read_text("utf-8"))), "needs a module docstring"


@each_file
def test_imports_point_one_way(path):
    package = path.relative_to(ROOT).parts[0]
    assert not imported(path.read_text("utf-8")) & FORBIDDEN[package]


@each_file
def test_no_file_is_named_for_leftovers(path):
    assert path.stem not in {"util", "utils", "helper", "helpers", "manager", "factory", "common"}


def test_the_checks_can_fail():
    long = "def f():\n" + "    x = 1\n" * 60  # 1 + 60 = 61 lines
    assert over_budget(long) == ["f has 61 lines, over 60"]
    assert not over_budget(long.replace("f():\n", 'f():\n    """One.\n\n    Over budget: x."""\n'))
    assert over_budget("x = 1\n" * 301) == ["the file has 301 lines, over 300"]
    assert imported(
        "def f():\n    from experiments.runner.run import run\n    import configs.tiny"
    ) == {
        "experiments",
        "configs",
    }


def test_importing_the_library_loads_no_data_library():
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in (ROOT / "moe").rglob("*.py")
        if "data" not in path.relative_to(ROOT / "moe").parts[:-1] or path.name == "__init__.py"
    ]
    statement = "import " + ", ".join(sorted(modules))
    watched = {"tensorflow", "tensorflow_datasets", "grain", "tokenizers", "matplotlib"}
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
@pytest.mark.parametrize(("ci", "outcome"), [("1", "1 failed, 1 skipped"), ("", "2 skipped")])
def test_a_multi_device_test_that_skips_fails_in_ci_only(ci, outcome, tmp_path):
    shutil.copy(ROOT / "tests" / "conftest.py", tmp_path)
    (tmp_path / "test_skips.py").write_text(
        "import pytest\n\n"
        "@pytest.mark.multi_device\ndef test_many():\n    pytest.skip('too few devices')\n\n"
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
