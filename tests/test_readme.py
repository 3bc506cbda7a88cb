"""The README is true: its tables are the registry's, its tree exists, its example runs."""

import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import commands, pages
from experiments.request import resolve
from moe import registry

ROOT = pathlib.Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def cited(paper):
    """An arXiv id as a link; other sources as they are."""
    is_id = re.fullmatch(r"\d{4}\.\d{5}", paper)
    return f"[{paper}](https://arxiv.org/abs/{paper})" if is_id else paper


def table(first):
    """The rows of the README's table whose head starts with that cell, head and rule left out."""
    found = re.search(rf"^\| {first} \|.*\n\|[-|]+\|\n((?:\|.*\n)*)", TEXT, re.MULTILINE)
    return found[1].splitlines()


def test_the_routers_are_the_registry():
    want = [
        f"| `{name}` | {line} | {cited(paper)} | {' | '.join(facts)} |"
        for name, line, paper, *facts in commands.router_rows()
    ]
    assert table("router") == want, "the table should be:\n" + "\n".join(want)


def test_the_other_parts_are_the_registry():
    want = []
    for kind, title in commands.TITLES.items():
        if kind not in ("router", "size"):
            papers = [registry.paper(kind, name) for name in registry.names(kind)]
            lines = [registry.summary(kind, name) for name in registry.names(kind)]
            parts = [
                f"`{name}` {line}" + f" ({cited(paper)})" * bool(paper)
                for name, line, paper in zip(registry.names(kind), lines, papers, strict=True)
            ]
            want.append(f"| {title} | {'; '.join(parts)} |")
    assert table("kind") == want, "the table should be:\n" + "\n".join(want)


def test_every_set_in_the_text_is_accepted():
    """By the arm that it is shown with, or by top2; `position` is only registered by the reader."""
    commands_shown = re.findall(r"^    python -m experiments .*--set .*$", TEXT, re.M)
    shown = [*commands_shown, *re.findall(r"`(--set [^`]+)`", TEXT)]
    shown = [text for text in shown if "path=value" not in text and "router=position" not in text]
    assert len(shown) >= 8
    for text in shown:
        arm = re.search(r"dense_topk_hash/(\w+)", text)
        fields = re.findall(r"--set ([\w.]+=[\w.:/+]+)", text)
        assert len(fields) == text.count("--set"), text
        resolve("dense_topk_hash", (arm[1] if arm else "top2",), "tiny", fields)


def test_the_tree_and_links_exist():
    tree = re.search(r"## Where things are\n\n(.*?)\n\n", TEXT, re.DOTALL)[1]
    folder = ROOT
    for line in tree.splitlines():
        name = line.split()[0]
        folder = ROOT if line.startswith("    ") and line[4] != " " else folder
        assert (folder / name).exists(), name
        if line[4] != " ":
            folder = ROOT / name
    for link in re.findall(r"\]\((?!http)([^)]+)\)", TEXT):
        assert (ROOT / link).exists(), link


def test_files_of_the_library_are_in_the_tree():
    tree = re.search(r"## Where things are\n\n(.*?)\n\n", TEXT, re.DOTALL)[1]
    for path in (ROOT / "moe").iterdir():
        if path.name not in ("__init__.py", "__pycache__"):
            named = rf"(?<![\w/]){re.escape(path.name)}(?![\w.])"  # layer.py is not in a_layer.py
            assert re.search(named, tree), path.name


def test_the_example_router_runs():
    code = re.search(r"```python\n(\"\"\"Position.*?)```", TEXT, re.DOTALL)[1]
    names = {"__name__": "position"}
    exec(code, names)
    from moe.model.layer import MoE

    layer = MoE(num_experts=4, router=names["Position"]())
    params = layer.init(jax.random.key(0), 8, 16)
    x_BLD = jnp.ones((1, 8, 8))
    _, aux = layer(params, x_BLD, jnp.zeros((1, 8), jnp.int32), None)
    np.testing.assert_array_equal(aux.counts.load_E, [2, 2, 2, 2])


@pytest.mark.parametrize("page", pages.PAGES, ids=lambda path: path.name)
def test_tables_are_those_of_the_benchmarks(page):
    text = page.read_text(encoding="utf-8")
    assert text == pages.filled(text), "run: python -m experiments.pages"
