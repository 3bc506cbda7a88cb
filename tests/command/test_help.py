"""--help: every command has its own, with real examples; a new one is one file and a line."""

import ast
import pathlib
import re
import shlex
import subprocess
import sys

import pytest
from absl import flags as absl_flags
from absl.testing import flagsaver

from experiments.command import flags
from experiments.command.contract import commands, find
from experiments.command.run import request
from experiments.runner.request import Request
from experiments.select import parse_name, resolve

ROOT = pathlib.Path(__file__).parents[2]
STUDY = "dense_topk_hash"
KNOWN = commands()
EXAMPLES = [(name, example) for name, one in KNOWN.items() for example in one.examples]


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["--helpfull"], ["--size=x", "--help"]])
def test_help_names_every_command(words, call):
    code, out, err = call(*words)
    assert (code, err) == (0, "") and out.startswith("usage: experiments COMMAND ")
    for name, one in KNOWN.items():
        if " " not in name:
            assert re.search(rf"^  {re.escape(f'{name} {one.words}')} +\S", out, re.MULTILINE)
            assert one.summary in out
    assert max(map(len, out.splitlines())) <= 100


@pytest.mark.parametrize("name", KNOWN)
def test_help_of_a_command_has_its_usage_flags_and_examples(name, call):
    one = KNOWN[name]
    code, out, err = call(*name.split(), "--help")
    assert (code, err) == (0, "") and call("--help", *name.split()) == (code, out, err)
    assert out.startswith(f"usage: experiments {name} {one.words}".rstrip()) and one.summary in out
    shown = re.findall(r"^  --([\w-]+)(?:=\S+)? +\S", out, re.MULTILINE)
    assert tuple(shown) == one.flags and ("flags:" in out) == bool(shown)
    assert out.count(f"\n  experiments {name}") == len(one.examples)
    assert len(one.examples) >= (2 if " " not in name else 1)
    assert max(map(len, out.splitlines())) <= 100


def test_help_gives_defaults(call):
    _, out, _ = call("run", "--help")
    assert "which size of the study [tiny]\n" in out and "0 decides by itself [0]\n" in out
    assert "by commas: uniform" in call("bench", "layer", "--help")[1]
    assert "zipf, one, empty [uniform]\n" in call("bench", "layer", "--help")[1]


def test_the_program_is_called_as_it_was_started():
    for module in ("experiments", "moe_experiments"):
        words = [sys.executable, "-m", module, "run", "--help"]
        out = subprocess.run(words, cwd=ROOT, capture_output=True, text=True).stdout
        assert out.startswith(f"usage: python -m {module} run STUDY[/ARM] ")
        assert f"\n  python -m {module} run dense_topk_hash --workdir=" in out


def test_help_of_no_command_is_a_mistake(call):
    assert call("rnu", "--help")[2].startswith("error: rnu: no such command; did you mean 'run'?")


@pytest.mark.parametrize(("name", "example"), EXAMPLES)
def test_every_example_is_a_command_line(name, example, call, tmp_path, monkeypatch):
    """Found, its flags taken, its words resolved; `list` and `show` answer in full."""
    monkeypatch.chdir(tmp_path)
    ours = {flag for one in KNOWN.values() for flag in one.flags}
    with flagsaver.flagsaver():
        words = flags.parse(["experiments", *name.split(), *shlex.split(example)], ours)
        whole, one = find(words, KNOWN)
        given = flags.given(whole, one.flags, ours)
    assert whole.startswith(name)
    if name == "run":
        assert isinstance(request(words[1], given), Request)
    elif "set" in one.flags:
        study, arms = parse_name(words[1] if name == "show" else STUDY)
        resolve(study, arms or getattr(given, "arms", None), given.size, given.set)
    if name in ("list", "show"):
        code, out, err = call(name, *shlex.split(example))
        assert (code, err) == (0, "") and out


def test_every_flag_is_one_of_absl_and_taken_by_some_command():
    taken = {flag for one in KNOWN.values() for flag in one.flags}
    defined = {
        node.args[0].value
        for path in (ROOT / "experiments").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "").startswith("DEFINE_")
    }
    assert taken == defined and all(flag in absl_flags.FLAGS for flag in taken)


TOY = '''
"""Says a word; a toy."""

from absl import flags

from experiments.command.contract import Command
from moe.registry import register

flags.DEFINE_string("toy-mark", "!", "what it ends with")


def act(words, given):
    print(*words, given.toy_mark, given.size, sorted(given.present))


COMMAND = Command("[WORD]", act, ("toy-mark", "size"), ("hello --toy-mark=?", "--size=small"))
register("command", "toy", f"{__name__}:COMMAND", "says a word")
'''


def test_a_command_is_one_file_and_one_line(call, added):
    added("toy_commands", TOY, "command", "toy")
    assert call("toy", "hello", "--toy-mark=?") == (0, "hello ? tiny ['toy-mark']\n", "")
    assert re.search(r"^  toy \[WORD\] +says a word$", call("--help")[1], re.MULTILINE)
    out = call("toy", "--help")[1]
    assert out.startswith("usage: experiments toy [WORD] [--FLAG=VALUE]...\n\nsays a word\n")
    assert "what it ends with [!]\n" in out and "\n  experiments toy hello --toy-mark=?\n" in out
    line = "error: --set: is no flag of toy (valid: --toy-mark, --size)\n"
    assert call("toy", "--set=a=1") == (2, "", line)
    line = "error: --toy-mark: is no flag of list (valid: none)\n"
    assert call("list", "--toy-mark=x") == (2, "", line)
    assert call("toy", "a", "b")[2] == "error: toy a b: must be 'toy [WORD]', has 2 words\n"
    assert "did you mean 'toy-mark'?" in call("toy", "--toy-mrak=1")[2]
    assert "did you mean 'toy'?" in call("tooy")[2]


def test_the_command_of_the_docs_works(call, added, shown):
    line = shown('_command("count"')
    about = ast.parse(line).body[0].value.args[2].value
    register = f"from moe.registry import register\nregister('command', 'count', {{}}, {about!r})\n"
    target = "f'{__name__}:COMMAND'"
    added("toy_shown", shown("COMMAND = ") + register.format(target), "command", "count")
    assert call("count", STUDY) == (0, "15\n", "") and about in call("count", "--help")[1]
