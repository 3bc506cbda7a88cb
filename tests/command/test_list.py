"""`list`: what it names, by part of a name, pattern and kind."""

import re

import pytest

from experiments.command import listing
from moe import registry

STUDY = "dense_topk_hash"

MISTAKES = {  # what is wrong: the words, and the line that must come back
    "kind misspelt": (
        "list ruoters",
        "list ruoters: no such name; did you mean 'routers'? (valid: ",
    ),
    "two patterns": ("list a b", "list a b: must be 'list [PATTERN]', has 2 words"),
    "pattern of nothing": ("list toppk", "list toppk: no such name; did you mean 'top_k'? (valid"),
    "flag where there are none": ("list --size=tiny", "--size: is no flag of list (valid: none)"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_every_mistake_is_one_line(mistake, mistaken):
    mistaken(*MISTAKES[mistake])


def test_list_names_all_that_is_registered(call):
    code, out, _ = call("list")
    assert code == 0
    assert set(listing.TITLES) == set(registry.HOMES) - {"study", "command", "benchmark"}
    blocks = {block.split("\n")[0]: block + "\n" for block in out.split("\n\n")}
    for kind in ("study", *listing.TITLES):
        for name in registry.names(kind):
            block = blocks[listing.TITLES.get(kind, "studies")]
            assert f"\n  {name:<20} {registry.summary(kind, name)}\n" in block
    for arm, line in dict(registry.lookup("study", STUDY).arms).items():
        assert f"\n      {arm:<14} {line}\n" in out


def test_list_filters_by_part_of_a_name_or_pattern(call):
    _, out, _ = call("list", "swi")
    assert "swiglu" in out and "switch" in out and "top_k" not in out and "studies" not in out
    _, out, _ = call("list", "top[12]")
    assert "top1" in out and "top2" in out and "dense_total" not in out and "routers" not in out


def test_list_of_routers_says_what_each_declares(call):
    code, out, err = call("list", "routers")
    assert (code, err) == (0, "")
    head, *lines = [re.split(r"\s{2,}", line) for line in out.splitlines()]
    assert head == ["router", "one line", "paper", "causal", "learned", "needs"]
    rows = {line[0]: line[1:] for line in lines}
    assert tuple(rows) == registry.names("router")
    assert rows["top_k"] == ["softmax, then the k best", "1701.06538", "yes", "yes", "nothing"]
    assert rows["hash_balanced"][1:] == ["2106.04426", "yes", "no", "ids"]
    assert rows["hash_oracle"][2] == rows["soft"][2] == rows["expert_choice"][2] == "no"
    assert rows["sinkhorn"][2] == rows["base"][2] == "evaluation only"
    assert rows["labelled"][3:] == ["yes", "labels"]


@pytest.mark.parametrize("kind", listing.TITLES)
def test_list_of_a_kind_takes_its_name_its_plural_and_its_title(kind, call):
    _, out, _ = call("list", kind)
    names = [line.split()[0] for line in out.splitlines()]
    assert names == [kind, *registry.names(kind)]
    assert call("list", listing.TITLES[kind]) == call("list", f"{kind}s") == (0, out, "")


def test_list_of_a_kind_gives_papers_where_there_are_any(call):
    assert call("list", "dispatchers")[1].splitlines()[0].split() == ["dispatch", "one", "line"]
    rows = [re.split(r"\s{2,}", line) for line in call("list", "shared experts")[1].splitlines()]
    assert rows[:2] == [
        ["shared", "one line", "paper"],
        ["ffn", registry.summary("shared", "ffn"), "2401.06066"],
    ]


def test_list_of_studies_has_nothing_else(call):
    _, out, _ = call("list", "studies")
    assert f"\n  {STUDY} " in out and "hash_balanced" in out and "routers" not in out
    assert call("list", "study")[1] == out
