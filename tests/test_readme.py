"""The README and docs/ are true: links, paths, tables, commands and code are those of the project.

`python tests/test_readme.py` writes the tables that the registry and the files themselves make.
"""

import ast
import importlib
import pathlib
import re
import sys

import jax
import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from experiments.bench import publish  # noqa: E402
from experiments.command import listing  # noqa: E402
from experiments.select import resolve  # noqa: E402
from moe import registry  # noqa: E402

README = ROOT / "README.md"
DOCS = sorted((ROOT / "docs").glob("*.md"))
PACKAGES = ("moe", "configs", "experiments", "launch")

each_page = pytest.mark.parametrize("path", [README, *DOCS], ids=lambda path: path.name)


def text(path):
    return path.read_text("utf-8")


def cited(paper):
    """An arXiv id as a link; other sources as they are."""
    is_id = re.fullmatch(r"\d{4}\.\d{5}", paper)
    return f"[{paper}](https://arxiv.org/abs/{paper})" if is_id else paper


def routers():
    """Every router, and what it declares."""
    lines = [
        "| router | one line | paper | causal | learned | needs |",
        "|---|---|---|---|---|---|",
    ]
    for name, line, paper, *facts in listing.router_rows():
        lines.append(f"| `{name}` | {line} | {cited(paper)} | {' | '.join(facts)} |")
    return lines


def parts():
    """Every other part, by kind."""
    lines = ["| kind | names |", "|---|---|"]
    for kind, title in listing.TITLES.items():
        if kind not in ("router", "size"):
            found = []
            for name in registry.names(kind):
                source = cited(registry.paper(kind, name))
                found.append(
                    f"`{name}` {registry.summary(kind, name)}" + f" ({source})" * bool(source)
                )
            lines.append(f"| {title} | {'; '.join(found)} |")
    return lines


def says(path):
    """The first line of a file's docstring."""
    return (ast.get_docstring(ast.parse(text(path))) or "").partition("\n")[0]


def files():
    """Every file of the packages, folder by folder."""
    lines = []
    for package in PACKAGES:
        for init in sorted((ROOT / package).rglob("__init__.py")):
            folder = init.parent.relative_to(ROOT).as_posix()
            lines += [f"## [`{folder}/`](../{folder})", "", says(init), ""]
            for path in sorted(set(init.parent.glob("*.py")) - {init}):
                lines.append(f"- [`{path.name}`](../{folder}/{path.name}): {says(path)}")
            lines += [""] * (lines[-1] != "")
    return lines[:-1]


TABLES = {"routers": routers, "parts": parts, "map": files}
GENERATED = (ROOT / "docs" / "parts.md", ROOT / "docs" / "map.md")


def filled(page):
    """The text of a page with its tables made anew."""

    def fill(match):
        return "\n".join([f"<!-- {match[1]} -->", "", *TABLES[match[1]](), "", "<!-- end -->"])

    return re.sub(r"<!-- (\w+) -->\n.*?<!-- end -->", fill, page, flags=re.DOTALL)


@pytest.mark.parametrize("path", GENERATED, ids=lambda path: path.name)
def test_tables_are_those_of_the_registry_and_the_files(path):
    assert re.search("<!-- (routers|parts|map) -->", text(path))
    assert text(path) == filled(text(path)), "run: python tests/test_readme.py"


@pytest.mark.parametrize("page", publish.PAGES, ids=lambda path: path.name)
def test_tables_are_those_of_the_benchmarks(page):
    assert text(page) == publish.filled(text(page)), "run: python -m experiments.bench.publish"


def anchors(page):
    """The names that links give the headings of a page."""
    titles = re.findall(r"^#+ (.*)$", page, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@each_page
def test_every_link_resolves(path):
    for link in re.findall(r"\]\((?!http)([^)\s]+)\)", text(path)):
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        assert target.exists(), link
        assert target.is_relative_to(ROOT), link
        assert not anchor or anchor in anchors(text(target)), link


@each_page
def test_every_page_is_reached_from_the_readme(path):
    assert path == README or f"](docs/{path.name}" in text(README)


NOT_THERE = {"moe/routers/position.py", "experiments/studies/NAME.py"}  # the reader writes them


@each_page
def test_every_path_and_name_in_the_text_exists(path):
    """Paths such as `moe/plan.py`, and names such as `moe.plan.Choices`."""
    shown = re.findall(r"`([^`\n]+)`", text(path))
    for name in set(shown) - NOT_THERE:
        if re.fullmatch(
            r"(moe|configs|experiments|launch|tests|docs|notebooks|constraints)/[\w/.]*", name
        ):
            assert (ROOT / name).exists(), name
        elif found := re.match(r"moe(\.\w+)+", name):
            assert exists(found[0]), name


def exists(name):
    """Whether a dotted name is a module, or an attribute of one."""
    above, _, last = name.rpartition(".")
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        return bool(above) and exists(above) and hasattr(importlib.import_module(above), last)
    return True


def test_the_map_of_the_readme_has_every_folder():
    tree = re.search(r"## Where things are\n\n(.*?)\n\n", text(README), re.DOTALL)[1]
    inside = tree[tree.index("moe/") : tree.index("configs/")]
    for package, lines in (("moe", inside), ("experiments", tree[tree.index("experiments/") :])):
        named = set(re.findall(r"(\w+)/", lines)) - {
            package,
            "launch",
            "docs",
            "notebooks",
            "tests",
        }
        there = {init.parent.name for init in (ROOT / package).glob("*/__init__.py")}
        assert named == there, package
    for name in re.findall(r"^ {4}(\w+/)| (\w+\.py)", inside, re.MULTILINE):
        assert (ROOT / (name[0] or f"moe/{name[1]}")).exists(), name


def test_a_tokens_way_is_in_the_files_that_it_names():
    way = re.search(r"A token's way: (.*?)Imports", text(README), re.DOTALL)[1]
    stops = re.findall(r"`([\w/]+\.py)`\s+`(\w+)`", way)
    assert len(stops) == 6
    for name, what in stops:
        assert re.search(rf"^(def|class) {what}\b", text(ROOT / name), re.MULTILINE), name


@each_page
def test_every_set_in_the_text_is_accepted(path):
    """By the arm that it is shown with, or by top2; `position` is only registered by the reader."""
    shown = re.findall(r"^    python -m experiments .*--set .*$", text(path), re.M)
    shown = [*shown, *re.findall(r"`(--set [^`]+)`", text(path))]
    shown = [line for line in shown if "path=value" not in line and "router=position" not in line]
    assert shown or path.name not in ("README.md", "command.md", "parts.md", "dispatch.md")
    for line in shown:
        arm = re.search(r"dense_topk_hash/(\w+)", line)
        line = line.replace("NAME", "ragged")
        fields = re.findall(r"--set ([\w.]+=[\w.:/+]+)", line)
        assert len(fields) == line.count("--set"), line
        resolve("dense_topk_hash", (arm[1] if arm else "top2",), "tiny", fields)


def code(path, first):
    """The block of Python that has this text, run; the names that it leaves."""
    (block,) = [b for b in re.findall(r"```python\n(.*?)```", text(path), re.DOTALL) if first in b]
    names = {"__name__": "shown"}
    exec(block, names)
    return names


def test_the_example_router_runs():
    from moe.model.layer import MoE

    layer = MoE(num_experts=4, router=code(README, "class Position")["Position"]())
    params = layer.init(jax.random.key(0), 8, 16)
    x_BLD = np.ones((1, 8, 8), np.float32)
    _, aux = layer(params, x_BLD)
    np.testing.assert_array_equal(aux.counts.load_E, [2, 2, 2, 2])


def test_the_layer_in_a_model_of_ones_own():
    names = code(README, "layer = MoE(")
    assert names["y_BLD"].shape == (2, 16, 64)
    assert np.isfinite(names["penalty"]) and names["penalty"] > 0
    assert names["aux"].counts.load_E.sum() == 2 * 16 * 2  # B L k


@pytest.mark.slow
def test_a_trained_run_is_read(tmp_path, monkeypatch):
    """The run that `make quickstart` leaves, here of no step."""
    from moe.checkpoint.format import Identity
    from moe.checkpoint.history import Checkpoints
    from moe.data.tokenizer import BYTES
    from moe.training import step

    experiment = resolve("dense_topk_hash", ["top2"], "tiny", [])["top2"]
    run = tmp_path / "runs" / "quickstart" / "top2" / "seed0"
    history = Checkpoints(run / "checkpoints", Identity("experiment", "data", "tokenizer"))
    history.save(0, step.init(experiment, None), loss=7.0)
    history.close()
    (run / "tokenizer.json").write_text(BYTES)
    monkeypatch.chdir(tmp_path)
    names = code(README, "restore_params(")
    assert names["logits_BLV"].shape == (1, len("To be, or not to be"), experiment.model.vocab_size)
    assert names["reports"].load_NE.sum() > 0


def test_the_example_study_makes_its_arms():
    study = code(ROOT / "docs" / "extend.md", "STUDY = Study(")["STUDY"]
    from moe.cost.account import account

    found = {arm: account(study.build(arm, "tiny").validate()) for arm, _ in study.arms}
    flops = [one.flops_per_token for one in found.values()]
    assert max(flops) / min(flops) < 1.01 and study.baseline in found
    assert all(getattr(study, field) for field in ("question", "sizes", "seeds"))


def test_the_example_metric_reads_a_trace():
    from tests.fakes import traces

    metric, found = code(ROOT / "docs" / "extend.md", "class Sure")["Sure"](), traces.random(k=1)
    (sure,) = metric(found, found.layers[0], np.random.default_rng(0))
    assert (sure.name, sure.value, sure.null_mean) == ("sure", 1, 1)  # one choice weighs 1


if __name__ == "__main__":
    for page in GENERATED:
        page.write_text(filled(text(page)), "utf-8")
