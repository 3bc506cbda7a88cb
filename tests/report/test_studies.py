"""A study is one file: the report of one that it has never seen, with three odd arms."""

import re
import sys

import pytest

from experiments.report.report import report, table
from experiments.results.declaration import Declaration
from moe import registry
from tests.fakes.study import Facts, Page, load, write_any
from tests.test_house import ROOT

STUDY = '''
"""Three odd arms."""

from experiments.studies.contract import Caveat, Contrast, Expectation, Scale, Study


def build(arm, size):
    raise NotImplementedError


STUDY = Study(
    question="Is x-1 <better> than Früh?",
    baseline="zz",
    arms=(("x-1", "first"), ("Früh", "second & wide"), ("zz", "last")),
    sizes=("tiny",),
    seeds=(0, 1, 2),
    build=build,
    contrasts=(
        Contrast(
            name="to_wide",
            title="Narrow against wide",
            arm="x-1",
            against="Früh",
            claim="narrow is as good",
            source="0000.00001",
            direction="equal",
            size=0.01,
        ),
    ),
    expectations=(
        Expectation("x-1", "lower", -0.02, "0000.00002"),
        Expectation("Früh", "higher", source="a run of before"),
    ),
    margin=0.05,
    scales=(Scale(name="way", title="Way from zz (0) to Früh (1)", start="zz", end="Früh"),),
    caveats=(
        Caveat("Früh is wide.", ("Früh",)),
        Caveat("All of it is made up."),
    ),
    colours=("Früh",),
)
'''
GAPS = {"zz": (0, 0, 0), "x-1": (-0.10, -0.11, -0.09), "Früh": (-0.20, -0.21, -0.19)}
FACTS = {
    "zz": Facts(sharpness=None, noise=0.0),
    "x-1": Facts(1.6e6 * 1.005),
    "Früh": Facts(3.2e6, sharpness=None),
}


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """The study in a package of its own, registered as a stranger would."""
    place = tmp_path_factory.mktemp("package")
    (place / "odd_studies").mkdir()
    (place / "odd_studies" / "__init__.py").write_text("")
    (place / "odd_studies" / "toy.py").write_text(STUDY, encoding="utf-8")
    registry.names("study")
    entries = dict(registry._ENTRIES["study"])
    sys.path.insert(0, str(place))
    registry.register("study", "toy", "odd_studies.toy:STUDY", "three odd arms")
    yield "toy"
    registry._ENTRIES["study"] = entries
    sys.path.remove(str(place))


@pytest.fixture(scope="module")
def directory(toy, tmp_path_factory):
    declared = Declaration.of(toy, "tiny", GAPS, (0, 1, 2), [])
    directory = write_any(tmp_path_factory.mktemp("runs"), declared, GAPS, FACTS)
    report(directory)
    return directory


def test_its_headline_answers_by_cost_and_by_what_it_declares(directory):
    assert load(directory)["headline"] == [
        "At equal FLOPs per token, x-1 ends 0.100 nats per token below zz.",
        "At 2.00 × the FLOPs, Früh ends 0.200 nats per token below zz.",
        "Narrow against wide: x-1 ends 0.100 above Früh, keeping 0.50 of its gain.",
    ]


def test_its_contrasts_scales_and_caveats_are_in_the_numbers_and_sentences(directory):
    record = load(directory)
    assert record["arm_order"] == ["zz", "x-1", "Früh"]
    one = record["arms"]["x-1"]
    assert one["to_wide"]["mean"] == pytest.approx(0.1) and one["to_wide"]["comparisons"] == 3
    assert one["way"]["value"] == pytest.approx(0.5) and record["arms"]["zz"]["way"] is None
    assert "to_wide" not in record["arms"]["zz"]
    assert any(
        line.startswith("Way from zz (0) to Früh (1): x-1 0.50") for line in record["findings"]
    )
    assert "Früh is wide." in record["caveats"] and "All of it is made up." in record["caveats"]
    assert record["colour_order"] == ["Früh", "x-1"]


def test_what_it_expects_stands_beside_what_came(directory):
    """x-1 - zz: mean -0.1, sd 0.01, p 0.0033; Früh - zz: -0.2; x-1 - Früh: 0.1 at every seed.

    All of them are told apart; 0.1 lies beyond the margin of 0.05. Seeds for 80 % power at
    0.05 / 3: an effect of 10 sd has 0.99 of it at three seeds (0.29 at two), one of 0.02 / 0.01 =
    2 sd has 0.85 at six (0.68 at five), by scipy.stats.nct.
    """
    record = load(directory)
    kept = ("arm", "against", "direction", "size", "verdict", "reason", "seeds")
    assert [tuple(one[key] for key in kept) for one in record["outcomes"]] == [
        ("x-1", "zz", "lower", -0.02, "supported", "told apart, lower", 3),
        ("Früh", "zz", "higher", None, "contradicted", "told apart, lower", 3),
        ("x-1", "Früh", "equal", 0.01, "contradicted", "beyond the margin of 0.050 nats", 3),
    ]
    one = record["outcomes"][0]
    assert one["difference"] == record["arms"]["x-1"]["difference"]
    assert (one["seeds_needed"], one["seeds_published"]) == (3, 6)
    assert record["answers"][0] == (
        "Of 3 expectations declared before the first step: 1 supported, 2 contradicted and 0 "
        "undecided."
    )
    sentence = (
        "The loss of x-1 was expected to be lower than that of zz (−0.020 nats published, arXiv "
        "0000.00002); the difference is −0.1000 nats per token (95 % interval −0.1248 to −0.0752, "
        "3 paired seeds, p = 0.0033, p = 1 by the tests for equality): supported, told apart, "
        "lower."
    )
    row = "x-1 - zz  lower -0.020  -0.1000 [-0.1248, -0.0752]  supported  3  3"
    assert row in [re.sub("  +", "  ", line) for line in table(directory).splitlines()]
    page = Page((directory / "report.html").read_text(encoding="utf-8"))
    assert sentence in record["answers"] and sentence in (directory / "results.md").read_text()
    assert sentence.replace("p = ", "p\xa0=\xa0").replace("95 %", "95\xa0%") in page.text
    assert any("that of zz (a run of before); the" in line for line in record["answers"])
    assert "#expected" in page.links and "x-1 − Früh" in page.text


def test_it_has_a_table_figures_and_a_page(directory):
    assert [line.split()[0] for line in table(directory).splitlines()[2:5]] == ["zz", "x-1", "Früh"]
    drawn = {path.name for path in (directory / "figures").glob("*.png")}
    assert "loss_curves.png" in drawn and "expert_load.png" in drawn and len(drawn) == 6
    page = Page((directory / "report.html").read_text(encoding="utf-8"))
    assert "Is x-1 <better> than Früh?" in page.text
    assert "narrow is as good (arXiv 0000.00001)" in page.text
    assert "way, x-1" in page.text and "second & wide" in page.text
    assert page.tags.count("figure") == 6


def test_study_json_carries_what_the_report_says(directory, toy, monkeypatch, undrawn):
    """A study that is gone, or has changed, does not change the report of its runs."""
    declared = Declaration.read(directory)
    assert declared == Declaration.of(toy, "tiny", GAPS, (0, 1, 2), [])
    before = load(directory)
    monkeypatch.setitem(registry._ENTRIES, "study", {})
    report(directory)
    assert load(directory) == before


def test_no_arm_of_a_study_is_named_outside_it():
    study = registry.lookup("study", "dense_topk_hash")
    names = re.compile(rf"\b({'|'.join(map(re.escape, dict(study.arms)))})\b")
    rooms = ("runner", "results", "report", "figures")
    files = [path for room in rooms for path in (ROOT / "experiments" / room).rglob("*.*")]
    files = [path for path in files if path.suffix in (".py", ".css", ".js")]
    assert len(files) > 30
    found = {
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in files
        for match in names.finditer(path.read_text("utf-8"))
    }
    assert not found
    assert names.search("is a dense arm") and not names.search("top10")
