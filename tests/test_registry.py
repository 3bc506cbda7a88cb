"""Tests of moe/registry.py, on a small tree of its own."""

import dataclasses
import math
from typing import Any, ClassVar, Literal, Protocol

import flax.linen as nn
import pytest

from moe import fields, registry


class Engine(Protocol):
    kind: ClassVar[str] = "router"


@dataclasses.dataclass(frozen=True)
class Diesel(Engine):
    k: int = 2
    bias: float = 0.5


@dataclasses.dataclass(frozen=True)
class Electric(Engine):
    cells: tuple[int, ...] = (1, 2)


BIG = Electric(cells=(9,))


@dataclasses.dataclass(frozen=True)
class Mixture:
    router: Engine = Diesel()
    spare: Engine | None = None
    num_experts: int = 8


@dataclasses.dataclass(frozen=True)
class Train:
    steps: int = 10
    rate: float = 1e-3
    clip: float | None = None
    seed: "int | None" = None
    verbose: bool = False
    tokenizer: Literal["bpe", "bytes"] = "bpe"
    precision: Literal["high", "low"] | None = None
    layers: tuple[int, ...] = (1, 3)
    label: str = "plain"
    when: int | Literal["never"] = "never"
    anything: Any = None


class Network(nn.Module):
    width: int = 4
    moe: Mixture | None = Mixture()


@dataclasses.dataclass(frozen=True)
class Trial:
    model: Network = Network()
    train: Train = Train()


@pytest.fixture(autouse=True)
def _own_names(monkeypatch):
    """Replaces the registered routers by the two engines of this file."""
    monkeypatch.setattr(registry, "_ENTRIES", {})
    monkeypatch.setitem(registry.HOMES, "router", "moe.registry")
    registry.register("router", "diesel", f"{__name__}:Diesel", "burns oil")
    registry.register("router", "electric", f"{__name__}:Electric", "burns nothing", "1701.06538")
    registry.register("router", "electric_big", f"{__name__}:BIG", "a preset")


def test_names_keep_the_order_of_registration():
    assert registry.names("router") == ("diesel", "electric", "electric_big")
    assert registry.summary("router", "electric") == "burns nothing"


def test_paper_is_what_was_given_or_nothing():
    assert registry.paper("router", "electric") == "1701.06538"
    assert registry.paper("router", "diesel") == ""


def test_a_name_may_stand_in_two_kinds(monkeypatch):
    monkeypatch.setitem(registry.HOMES, "gate", "moe.registry")
    registry.register("gate", "diesel", f"{__name__}:Electric", "opens", "a paper")
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
            f"router.diesel=a.b:C: is taken by {__name__}:Diesel",
        ),
        (
            lambda: registry.register("router", "x", "a.b.C", ""),
            "router.x=a.b.C: must be 'package.module:attribute'",
        ),
        (
            lambda: registry.names("ruoter"),
            "kind=ruoter: no such kind; did you mean 'router'? "
            "(valid: benchmark, command, dispatch, experts, gate, kernel, key, layer, layout, "
            "noise, null, overflow, router, rule, schedule, score, shared, size, study, table)",
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
    ("path", "text", "value"),
    [
        ("train.steps", "1_000", 1000),
        ("train.steps", "-3", -3),
        ("train.rate", "2e-4", 2e-4),
        ("train.rate", "3", 3.0),
        ("train.rate", "inf", math.inf),
        ("train.clip", "none", None),
        ("train.clip", "1", 1.0),
        ("train.seed", "7", 7),
        ("train.seed", "None", None),
        ("train.verbose", "True", True),
        ("train.verbose", "false", False),
        ("train.tokenizer", "bytes", "bytes"),
        ("train.precision", "none", None),
        ("train.precision", "low", "low"),
        ("train.layers", "0,2", (0, 2)),
        ("train.layers", "(0, 2,)", (0, 2)),
        ("train.layers", "5", (5,)),
        ("train.layers", "()", ()),
        ("train.label", "a=b c", "a=b c"),
        ("train.when", "4", 4),
        ("train.when", "never", "never"),
        ("model.width", "16", 16),
        ("model.moe", "none", None),
        ("model.moe.num_experts", "4", 4),
        ("model.moe.router", "electric_big", BIG),
        ("model.moe.spare", "diesel", Diesel()),
        ("model.moe.spare", "none", None),
        ("model.moe.router.k", "9", 9),
    ],
)
def test_override_reads_the_annotation(path, text, value):
    changed = fields.override(Trial(), path, text)
    found = changed
    for name in path.split("."):
        found = getattr(found, name)
    assert found == value and type(found) is type(value)
    differing = {
        p
        for p, v in (fields.fields(Trial()).items() ^ fields.fields(changed).items())
        if not p.startswith(path)
    }
    assert not differing, "an override changes nothing else"


@pytest.mark.parametrize(
    ("path", "text", "rule"),
    [
        ("train.steps", "many", "must be an int"),
        ("train.steps", "1.5", "must be an int"),
        ("train.steps", "", "must be an int"),
        ("train.rate", "fast", "must be a number"),
        ("train.rate", "nan", "must be a number"),
        ("train.clip", "x", "must be a number or none"),
        ("train.verbose", "1", "must be true or false"),
        (
            "train.tokenizer",
            "bp",
            "no such value; did you mean 'bpe'? (valid: bpe, bytes)",
        ),
        ("train.precision", "zz", "no such value (valid: high, low, none)"),
        ("train.layers", "1,x", "must be ints separated by commas, such as 1,3"),
        ("train.layers", "1,,3", "must be ints separated by commas, such as 1,3"),
        ("train.when", "x", "no such value (valid: never)"),
        ("train.anything", "1", "has no text form, so it can only be set from Python"),
        ("train", "1", None),
        ("model.moe", "big", "must be none, or set one of its fields (router, spare, num_experts)"),
        (
            "model.moe.router",
            "deisel",
            "no such router; did you mean 'diesel'? (valid: diesel, electric, electric_big)",
        ),
        (
            "model.moe.router",
            "Electric",
            "no such router; did you mean 'electric'? (valid: diesel, electric, electric_big)",
        ),
        (
            "model.moe.spare",
            "x",
            "no such router (valid: diesel, electric, electric_big, none)",
        ),
    ],
)
def test_a_value_that_does_not_fit_is_one_line(path, text, rule):
    with pytest.raises(ValueError) as error:
        fields.override(Trial(), path, text)
    assert not isinstance(error.value, fields.MissingField)
    if rule is None:
        names = ", ".join(field.name for field in dataclasses.fields(Train))
        rule = f"has fields; set one of its fields ({names})"
    assert str(error.value) == f"{path}={text}: {rule}"


@pytest.mark.parametrize(
    ("path", "rule"),
    [
        (
            "model.moe.ruoter",
            "no such field; did you mean 'router'? (valid: num_experts, router, spare)",
        ),
        ("model.parent", "no such field (valid: moe, width)"),
        ("model.moe.router.cells", "no such field (valid: bias, k)"),
        ("model.moe.spare.k", "model.moe.spare is none and has no fields"),
        ("train.steps.x", "train.steps is of type int and has no fields"),
        ("", "no such field (valid: model, train)"),
        ("train.", None),
    ],
)
def test_a_path_that_is_not_there_is_a_missing_field(path, rule):
    with pytest.raises(fields.MissingField) as error:
        fields.override(Trial(), path, "1")
    assert str(error.value).startswith(f"{path}=1: ") and "\n" not in str(error.value)
    assert rule is None or str(error.value) == f"{path}=1: {rule}"


def test_fields_are_leaves_under_dotted_paths():
    leaves = fields.fields(Trial(model=Network(moe=Mixture(router=Electric()))))
    assert list(leaves)[:8] == [
        "model",
        "model.width",
        "model.moe",
        "model.moe.router",
        "model.moe.router.cells",
        "model.moe.spare",
        "model.moe.num_experts",
        "train",
    ]
    assert leaves["model.moe.router"] == "Electric" and leaves["model.moe.router.cells"] == (1, 2)
    assert fields.fields(Trial(model=Network(moe=None)))["model.moe"] is None


def rebuilt(text):
    """Evaluates the expression in a namespace that holds its own imports and nothing else."""
    imports, body = text.split("\n\n", 1)
    namespace = {}
    exec(imports, namespace)
    return eval(body, namespace)


@pytest.mark.parametrize(
    "tree",
    [
        Trial(),
        Trial(model=Network(moe=None)),
        Trial(model=Network(width=8, moe=Mixture(router=BIG, spare=Diesel(bias=-0.1)))),
        Trial(train=Train(rate=math.inf, clip=-math.inf, layers=(), label='it\'s\n"so"')),
        Train(seed=3, layers=(7,)),
    ],
)
def test_expression_rebuilds_an_equal_tree(tree):
    assert rebuilt(fields.expression(tree)) == tree


def test_expression_is_one_field_a_line_with_its_imports():
    assert fields.expression(Mixture(num_experts=3)) == (
        f"from {__name__} import Diesel, Mixture\n"
        "\n"
        "Mixture(\n"
        "    router=Diesel(\n"
        "        k=2,\n"
        "        bias=0.5,\n"
        "    ),\n"
        "    spare=None,\n"
        "    num_experts=3,\n"
        ")\n"
    )


def test_expression_refuses_what_has_no_literal():
    with pytest.raises(TypeError, match="has no literal"):
        fields.expression(Train(anything=object()))
    with pytest.raises(TypeError, match="nan"):
        fields.expression(Train(rate=math.nan))


def test_expression_refuses_two_classes_of_one_name():
    other = dataclasses.make_dataclass("Train", [("x", int, 1)], frozen=True)
    other.__module__ = "elsewhere"
    with pytest.raises(TypeError, match="two classes named Train"):
        fields.expression(Train(anything=other()))


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
