"""Tests of moe/fields.py, on a small tree."""

import dataclasses
import math
from typing import Annotated, Literal

import pytest

from moe import fields, registry
from tests.fakes import tree
from tests.fakes.tree import BIG, Diesel, Electric, Mixture, Network, Train, Trial

own_names = tree.own_names


@pytest.mark.parametrize(
    ("path", "text", "value"),
    [
        ("train.steps", "1_000", 1000),
        ("train.steps", "-3", -3),
        ("train.rate", "2e-4", 2e-4),
        ("train.rate", "3", 3.0),
        ("train.rate", "0e9", 0.0),
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
        ("train.rate", "1e-400", "must be a number"),  # Python reads it as 0
        ("train.rate", "-0.0001e-400", "must be a number"),
        ("train.steps", "9" * 5000, "must be an int"),  # int() reads at most 4,300 digits
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
        "from tests.fakes.tree import Diesel, Mixture\n"
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


FLOAT32 = "must be 0 or in size a float32, from 2**-126 to 2**128"


@dataclasses.dataclass(frozen=True)
class Limits:
    count: Annotated[int, fields.AtLeast(1)] = 1
    never: Annotated[int, fields.AtLeast(0, "0 is never")] = 0
    rate: Annotated[float, fields.Above(0)] = 1e-3
    weight: Annotated[float, fields.AtLeast(0)] = 0.0
    decay: Annotated[float, fields.Within(0, 1, "[)")] = 0.9
    share: Annotated[float, fields.Within(0, 1)] = 1.0
    salt: Annotated[int, fields.Within(0, 2**32, "[)")] = 0
    most: Annotated[int, fields.AtLeast(1)] | None = None
    order: Literal["up", "down"] = "up"
    free: int | str = "any"
    layers: tuple[int, ...] = ()
    loose: float = 1.0


@dataclasses.dataclass(frozen=True)
class Loose(Limits):
    count: int = 5  # another default, the range of the class above


@dataclasses.dataclass(frozen=True)
class Holder:
    limits: Limits | None = Limits()


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"count": 0}, "count=0: must be >= 1"),
        ({"count": 1.5}, "count=1.5: must be an int"),
        ({"count": "1"}, "count=1: must be an int"),
        ({"never": -1}, "never=-1: must be >= 0 (0 is never)"),
        ({"rate": 0.0}, "rate=0.0: must be a number > 0"),
        ({"rate": math.nan}, "rate=nan: must be a number > 0"),
        ({"rate": math.inf}, "rate=inf: must be a number > 0"),
        ({"weight": -1}, "weight=-1: must be a number >= 0"),
        ({"decay": 1.0}, "decay=1.0: must be in [0, 1)"),
        ({"share": 1.5}, "share=1.5: must be in [0, 1]"),
        ({"salt": 2**32}, "salt=4294967296: must be in [0, 2^32)"),
        ({"most": 0}, "most=0: must be >= 1 or none"),
        ({"most": "x"}, "most=x: must be an int or none"),
        # int32: the largest size of an array, and the largest loop of JAX, are 2**31 - 1.
        ({"count": 2**31}, "count=2147483648: must be between -2**31 and 2**31"),
        ({"most": 2**63}, f"most={2**63}: must be between -2**31 and 2**31"),
        ({"layers": (0, 2**31)}, "layers=2147483648: must be between -2**31 and 2**31"),
        # float32: 2**-126 = 1.18e-38 is its smallest normal number, 2**128 = 3.40e38 is inf.
        ({"rate": 1e-38}, f"rate=1e-38: {FLOAT32}"),
        ({"weight": 3.5e38}, f"weight=3.5e+38: {FLOAT32}"),
        ({"loose": -1e39}, f"loose=-1e+39: {FLOAT32}"),
        ({"order": "sideways"}, "order=sideways: no such value (valid: down, up)"),
    ],
)
def test_a_field_out_of_its_range_is_one_line(changed, line):
    for limits in (Limits(**changed), Loose(**{"count": 1, **changed})):
        for held, path, begin in ((limits, "", ""), (Holder(limits), "here", "here.limits.")):
            with pytest.raises(registry.Mistake) as error:
                fields.check_fields(held, path)
            assert str(error.value) == begin + line


@pytest.mark.parametrize(
    "tree",
    [
        Limits(),
        Limits(1, 0, 1, 0, 0, 0.0, 2**32 - 1, 1, "down", 7),
        Limits(2**31 - 1, rate=1.2e-38, weight=3.4e38, loose=math.inf, most=2**31 - 1),
        Loose(),
        Holder(None),
        Trial(),
    ],
)
def test_fields_in_their_ranges_are_accepted(tree):
    fields.check_fields(tree, "")


def test_override_reads_a_field_that_has_a_range():
    assert fields.override(Limits(), "rate", "2") == Limits(rate=2.0)
    assert fields.override(Limits(), "most", "none") == Limits()
    assert fields.override(Limits(), "most", "3") == Limits(most=3)
    with pytest.raises(registry.Mistake, match="^most=x: must be an int or none$"):
        fields.override(Limits(), "most", "x")
