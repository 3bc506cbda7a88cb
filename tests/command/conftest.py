"""What tests of commands share: a command line in this process, folders to be wrong about, toys."""

import importlib
import pathlib
import re
import sys

import pytest
from absl import flags
from absl.testing import flagsaver

from experiments import __main__ as command
from experiments.command.contract import commands
from moe import registry

commands()  # defines the flags, which flagsaver would forget


@pytest.fixture
def call(capsys):
    """Runs a command line in this process: exit code, stdout, stderr."""

    def run(*words):
        with flagsaver.flagsaver():
            code = command.main(["experiments", *words])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


@pytest.fixture(scope="session")
def places(tmp_path_factory):
    """A folder with a file, `file`, an empty folder, `empty`, and a broken record in `broken`."""
    tmp = tmp_path_factory.mktemp("places")
    (tmp / "file").write_text("x")
    (tmp / "empty").mkdir()
    (tmp / "broken").mkdir()
    (tmp / "broken" / "experiment.txt").write_text("Experiment(train=Train(steps=1+")
    return tmp


@pytest.fixture
def mistaken(call, places):
    """Holds a command line to one line on stderr and exit code 2; {tmp} is the folder `places`."""

    def check(words, line):
        words, line = (text.replace("{tmp}", str(places)) for text in (words, line))
        code, out, err = call(*words.split())
        assert err.startswith(f"error: {line}") and err.count("\n") == 1 and err.endswith("\n")
        assert (code, out) == (2, "")
        assert not (places / "new").exists(), "a mistake leaves nothing behind"

    return check


@pytest.fixture
def handed_on(monkeypatch):
    """Stands in for training and reporting; keeps what they were called with."""
    calls = []

    def keep(name, result=None):
        def act(*words, **named):
            calls.append((name, words, named))
            return result

        return act

    stand_ins = {
        "runner.run.run": None,
        "runner.huge_pages.restart": None,
        "report.report.report": "the page",
        "report.report.table": "the table",
        "bench.step.step": None,
        "bench.router.router": None,
        "bench.data.data": None,
    }
    for path, result in stand_ins.items():
        stand_in = keep(path.rpartition(".")[2], result)
        monkeypatch.setattr(f"experiments.{path}", stand_in)
    return calls


@pytest.fixture
def added(tmp_path, monkeypatch):
    """Imports a package of one file, which registers a part; forgets it, and its flags, again."""
    flags_before, modules, parts = set(flags.FLAGS), set(sys.modules), []

    def add(package, text, kind, name):
        parts.append((kind, name))
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text(f"from {package} import toy\n")
        (tmp_path / package / "toy.py").write_text(text.lstrip())
        monkeypatch.syspath_prepend(tmp_path)
        importlib.import_module(package)

    yield add
    for kind, name in parts:
        del registry._ENTRIES[kind][name]
    for name in set(flags.FLAGS) - flags_before:
        delattr(flags.FLAGS, name)
    for name in set(sys.modules) - modules:
        if name.startswith("toy_"):
            del sys.modules[name]


@pytest.fixture
def shown():
    """The block of Python in docs/extend.md that has this text."""
    page = (pathlib.Path(__file__).parents[2] / "docs" / "extend.md").read_text("utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)

    def block(text):
        (found,) = [block for block in blocks if text in block]
        return found

    return block
