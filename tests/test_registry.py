"""Tests of moe/registry.py, on the names of a small tree."""

import pytest

from moe import registry
from tests.fakes import tree
from tests.fakes.tree import BIG, Diesel

own_names = tree.own_names


def test_names_keep_the_order_of_registration():
    assert registry.names("router") == ("diesel", "electric", "electric_big")
    assert registry.summary("router", "electric") == "burns nothing"


def test_paper_is_what_was_given_or_nothing():
    assert registry.paper("router", "electric") == "1701.06538"
    assert registry.paper("router", "diesel") == ""


def test_a_name_may_stand_in_two_kinds(monkeypatch):
    monkeypatch.setitem(registry.HOMES, "gate", "moe.registry")
    registry.register("gate", "diesel", "tests.fakes.tree:Electric", "opens", "a paper")
    assert registry.summary("gate", "diesel") == "opens"
    assert registry.summary("router", "diesel") == "burns oil"
    assert registry.paper("router", "diesel") == ""


def test_lookup_calls_a_class_and_returns_a_preset_as_it_is():
    assert registry.lookup("router", "diesel") == Diesel()
    assert registry.lookup("router", "electric_big") is BIG


def test_lookup_imports_only_what_is_looked_up():
    registry.register("router", "broken", "no.such.package:X", "never imported")
    assert registry.lookup("router", "diesel") == Diesel()
    with pytest.raises(ModuleNotFoundError):
        registry.lookup("router", "broken")


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (
            lambda: registry.register("router", "diesel", "a.b:C", ""),
            "router.diesel=a.b:C: is taken by tests.fakes.tree:Diesel",
        ),
        (
            lambda: registry.register("router", "x", "a.b.C", ""),
            "router.x=a.b.C: must be 'package.module:attribute'",
        ),
        (
            lambda: registry.names("ruoter"),
            "kind=ruoter: no such kind; did you mean 'router'? "
            "(valid: benchmark, command, comparison, dispatch, experts, gate, kernel, key, layer, "
            "layout, metric, noise, null, overflow, priority, router, rule, schedule, score, "
            "shared, size, study, table, token_vectors)",
        ),
        (
            lambda: registry.lookup("router", "deisel"),
            "router=deisel: no such router; did you mean 'diesel'? "
            "(valid: diesel, electric, electric_big)",
        ),
        (
            lambda: registry.paper("router", "desel"),
            "router=desel: no such router; did you mean 'diesel'? "
            "(valid: diesel, electric, electric_big)",
        ),
        (
            lambda: registry.summary("router", "qqq"),
            "router=qqq: no such router (valid: diesel, electric, electric_big)",
        ),
    ],
)
def test_a_wrong_name_is_one_line_with_the_nearest(call, line):
    with pytest.raises(ValueError) as error:
        call()
    assert str(error.value) == line


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("hsah", "hash_random"), ("Top-K", "top_k"), ("balanced", "hash_balanced"), ("zzz", None)],
)
def test_the_nearest_name_knows_parts_and_beginnings(name, nearest):
    line = registry.no_such("router", name, ["hash_balanced", "hash_random", "top_k"])
    hint = f"; did you mean {nearest!r}?" if nearest else ""
    assert line == f"no such router{hint} (valid: hash_balanced, hash_random, top_k)"


def test_no_valid_names_is_said():
    assert registry.no_such("study", "x", []) == "no such study (valid: none so far)"
