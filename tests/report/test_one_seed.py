"""Tests of the report where no arm has a second seed: it says so once, without dashes for it."""

import re

import pytest

from experiments.report.report import report, table
from tests.fakes.study import Page, load, write_study


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    arms = ("dense", "dense_total", "top1", "hash_random")
    directory = write_study(tmp_path_factory.mktemp("one"), arms=arms, seeds=(0,))
    report(directory)
    return directory


def test_one_seed_claims_nothing(study):
    record = load(study)
    assert record["arms"]["top1"]["verdict"] == "one seed"
    assert record["arms"]["top1"]["difference"]["low"] is None
    assert record["arms"]["hash_random"]["hash_share"]["value"] is None
    assert "fewer than two seeds" in record["arms"]["hash_random"]["hash_share"]["reason"]
    assert not any("beyond" in line for line in record["headline"] + record["findings"])


def test_arms_of_equal_cost_come_before_the_rival_at_three_times_the_cost(study):
    record = load(study)
    assert record["headline"] == [
        "One seed per arm: every difference below is a single draw, and none can be told from the "
        "noise between seeds.",
        "In this draw, at equal FLOPs per token, top1 has the lowest loss of the other arms, 0.100 "
        "nats per token below dense.",
        "In this draw, at 3.00 × the FLOPs, dense_total ends 0.200 nats per token below dense.",
    ]
    assert record["arm_order"] == ["dense", "top1", "hash_random", "dense_total"]
    assert record["findings"][0] == "top1 ended 0.1000 nats per token below dense."


def test_it_is_said_once(study):
    page = Page((study / "report.html").read_text())
    for text in (page.text, table(study), (study / "results.md").read_text()):
        assert len(re.findall("[Oo]ne seed|single draw", text)) == 2  # both in one sentence
        assert "interval" not in text and " sd" not in text
    assert "#sure" not in page.links


def test_no_column_is_empty(study):
    lines = [line for line in (study / "results.md").read_text().splitlines() if line[0:1] == "|"]
    heads, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert "Verdict" not in heads and "Load entropy" in heads
    for head, *cells in zip(heads, *rows, strict=True):
        assert set(cells) - {"", "–"}, head
    assert "4.5000" in table(study) and "±" not in table(study)


def test_figures_show_no_spread(study):
    assert "band" not in (text := (study / "report.html").read_text())
    assert "Bars are" not in text and "One seed is shown" not in text
