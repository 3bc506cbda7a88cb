"""The README is true: its tables are the registry's, its tree exists, its example runs."""

import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np

from moe import registry

ROOT = pathlib.Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_table_is_the_registry():
    rows = re.findall(r"^\| (\w+) \| `(\w+)` \| (.+) \|$", TEXT, re.MULTILINE)
    kinds = ("router", "dispatch", "experts")
    want = [
        (kind, name, registry.summary(kind, name))
        for kind in kinds
        for name in registry.names(kind)
    ]
    assert rows == want, "\n".join(f"| {kind} | `{name}` | {text} |" for kind, name, text in want)


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
            assert path.name in tree, path.name


def test_the_example_router_runs():
    code = re.search(r"```python\n(\"\"\"Position.*?)```", TEXT, re.DOTALL)[1]
    names = {"__name__": "position"}
    exec(code, names)
    from moe.layer import MoE

    layer = MoE(num_experts=4, router=names["Position"]())
    params = layer.init(jax.random.key(0), 8, 16)
    x_BLD = jnp.ones((1, 8, 8))
    _, aux = layer(params, x_BLD, jnp.zeros((1, 8), jnp.int32), None)
    np.testing.assert_array_equal(aux.counts.load_E, [2, 2, 2, 2])
