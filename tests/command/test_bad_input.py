"""Hundreds of bad inputs: each is one line that names what is wrong, and exit code 2.

`python -m tests.command.test_bad_input` writes the table, tests/golden/errors.txt.
"""

import contextlib
import io
import pathlib
import re
import tempfile

import pytest
from absl.testing import flagsaver

from experiments import __main__ as command
from experiments.command.contract import commands
from tests.command.bad_input import GROUPS, make

PAGE = pathlib.Path(__file__).parents[1] / "golden" / "errors.txt"
LEAST = 300

commands()  # defines the flags, which flagsaver would forget


def answers(group, tmp):
    """(bad input, exit code, stdout, stderr) of each, with the folder spelt {tmp}."""
    for bad in dict.fromkeys(GROUPS[group]()):
        out, err = io.StringIO(), io.StringIO()
        asked = [word.replace("{tmp}", str(tmp)) for word in bad.words]
        with flagsaver.flagsaver(), contextlib.redirect_stdout(out):
            with contextlib.redirect_stderr(err):
                try:
                    code = command.main(["experiments", *asked])
                except Exception as error:
                    code = f"{type(error).__name__}: {error}"
        yield bad, code, out.getvalue(), err.getvalue().replace(str(tmp), "{tmp}")


def page(found):
    """The table as Markdown."""
    total = sum(map(len, found.values()))
    lines = ["# Mistakes and their lines", ""]
    lines += [
        f"What the command says to {total} bad inputs; each exits with code 2. `{{tmp}}` is a"
    ]
    lines += ["folder of the test. Written by `python -m tests.command.test_bad_input`.", ""]
    for group, rows in found.items():
        lines += [f"## {group.capitalize()}", "", "| input | line |", "|---|---|"]
        for bad, err in rows:  # what Python says in brackets differs between its versions
            line = re.sub(r"(damaged|an experiment|not JSON) \(.*", r"\1 (...)", err)
            lines += [f"| {cell(' '.join(map(quoted, bad.words)))} | {cell(line)} |"]
        lines += [""]
    return "\n".join(lines)


def quoted(word):
    return word if word and " " not in word else f"'{word}'"


def cell(text):
    short = text.strip().removeprefix("error: ").replace("\0", "\\0")
    short = short if len(short) <= 160 else short[:157] + "..."
    return f"`` {short} ``".replace("|", "\\|")


def collect(tmp):
    make(tmp)
    return {g: [(bad, err) for bad, _, _, err in answers(g, tmp)] for g in GROUPS}


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    tmp = tmp_path_factory.mktemp("bad")
    make(tmp)
    return tmp


FOUND = {}


@pytest.mark.parametrize("group", GROUPS)
def test_each_bad_input_is_one_line_that_names_it(group, places):
    wrong, FOUND[group] = [], []
    for bad, code, out, err in answers(group, places):
        FOUND[group].append((bad, err))
        good = code == 2 and out == "" and err.startswith("error: ") and err.count("\n") == 1
        if not good or bad.names not in err.replace(str(places), "{tmp}"):
            wrong.append(f"{' '.join(bad.words)} -> {code} {err[:200]!r}")
    assert not wrong, f"{len(wrong)} of {len(FOUND[group])}:\n" + "\n".join(wrong)
    assert not (places / "new").exists(), "a mistake leaves nothing behind"


def test_there_are_hundreds_and_the_page_has_them():
    if len(FOUND) < len(GROUPS):
        pytest.skip("needs the tests above")
    assert len({bad.words for rows in FOUND.values() for bad, _ in rows}) >= LEAST
    assert PAGE.read_text("utf-8") == page(FOUND), "run python -m tests.command.test_bad_input"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        PAGE.write_text(page(collect(pathlib.Path(folder))), "utf-8")
