"""Tests of the report on a synthetic study whose means, intervals and ratios are worked by hand."""

import json
import math
import subprocess
import sys

import pytest

from experiments.report.report import report, table
from tests.fakes.study import T2, Page, edit, load, router_record, write_study


def strip_timing(record):
    if isinstance(record, dict):
        return {key: strip_timing(value) for key, value in record.items() if key != "timing"}
    return record


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    directory = write_study(tmp_path_factory.mktemp("study"))
    assert report(directory) == directory / "report.html"
    return directory


def test_losses_and_differences_are_those_worked_by_hand(study):
    arms = load(study)["arms"]
    assert arms["dense"]["val_loss"]["mean"] == pytest.approx(4.60)
    assert arms["dense"]["val_loss"]["sd"] == pytest.approx(0.02)
    assert arms["dense"]["difference"] is None
    one = arms["top1"]["difference"]  # -0.10, -0.11, -0.09: mean -0.1, sd 0.01
    half = T2 * 0.01 / math.sqrt(3)
    assert one["mean"] == pytest.approx(-0.1)
    assert (one["low"], one["high"]) == pytest.approx((-0.1 - half, -0.1 + half))
    assert one["by_seed"] == pytest.approx({"0": -0.10, "1": -0.11, "2": -0.09})
    assert one["effect"] == pytest.approx(-10)
    # -0.02, 0.01, -0.02: mean -0.01, sd sqrt(3e-4) = 0.0173, t^2 = 1.
    assert arms["hash_balanced"]["difference"]["sd"] == pytest.approx(math.sqrt(3e-4))
    assert {arm: arms[arm]["verdict"] for arm in arms} == {
        "dense": "baseline",
        "dense_total": "lower",
        "top1": "lower",
        "top2": "lower",
        "hash_random": "lower",
        "hash_balanced": "not told apart",
    }


def test_holm_counts_the_five_arms_and_the_two_contrasts(study):
    arms = load(study)["arms"]
    # Equal sds of 0.01 for four arms, so t^2 = 3 (mean / 0.01)^2 and p = 1 - sqrt(t^2 / (2 + t^2)).
    # dense_total: t^2 = 1200, smallest of seven, times 7; top2 and top1 come next, then
    # hash_random: t^2 = 147, times 4.
    assert arms["dense_total"]["difference"]["p_holm"] == pytest.approx(
        7 * (1 - math.sqrt(1200 / 1202))
    )
    assert arms["hash_random"]["difference"]["p_holm"] == pytest.approx(
        4 * (1 - math.sqrt(147 / 149))
    )
    # hash_balanced - top1: 0.08, 0.12, 0.07, mean 0.09, variance 0.0007, t^2 = 34.7, p = 0.028,
    # the fifth, times 3.
    one = arms["hash_balanced"]["difference_to_learned"]
    t2 = 3 * 0.09**2 / 0.0007
    assert one["p_holm"] == pytest.approx(3 * (1 - math.sqrt(t2 / (2 + t2))))
    assert one["low"] > 0 and one["verdict"] == "not told apart"
    assert {arms[arm]["difference"]["comparisons"] for arm in arms if arm != "dense"} == {7}
    desks = arms["top1"]["desk_difference"]
    assert {one["comparisons"] for one in desks.values()} == {25}  # 5 arms x 5 desks


def test_position_and_hash_share_are_those_worked_by_hand(study):
    arms = load(study)["arms"]
    position = arms["top1"]["position"]  # 0.1 / 0.2; interval as in test_statistics
    v = T2**2 * 1e-4 / 3
    root = math.sqrt((0.02 - v) ** 2 - (0.04 - v) * (0.01 - v))
    ends = ((0.02 - v - root) / (0.04 - v), (0.02 - v + root) / (0.04 - v))
    assert position["value"] == pytest.approx(0.5)
    assert (position["low"], position["high"]) == pytest.approx(ends)
    assert arms["hash_random"]["hash_share"]["value"] == pytest.approx(0.7)  # 0.07 / 0.10
    assert arms["dense"]["position"] is None
    assert "hash_share" not in arms["top2"]
    one = arms["hash_random"]["difference_to_learned"]  # 0.04, 0.04, 0.01
    assert one["mean"] == pytest.approx(0.03)
    assert one["comparisons"] == 7


def test_results_hold_means_over_seeds_of_router_timing_and_curves(study):
    entry = load(study)["arms"]["top1"]
    assert entry["timing"]["tokens_per_s"] == pytest.approx(9100)  # 9000, 9100, 9200
    assert entry["router"]["load_entropy"] == pytest.approx([0.98, 0.96])
    assert entry["router"]["shown_seed"] == 0
    peak = entry["router"]["peak"]
    loads_there = router_record()["desk_load"][peak["desk"]]
    assert peak["share"] == loads_there[[1, 3].index(peak["layer"])][peak["expert"]]
    assert entry["flops_ratio"] == pytest.approx(1.61 / 1.60)
    assert entry["curve"]["eval"]["tokens"] == [125_000 * i for i in range(1, 9)]
    assert entry["curve"]["eval_difference"]["mean"][-1] == pytest.approx(-0.1)
    last = {key: band[-1] for key, band in entry["curve"]["eval"].items()}
    assert last["mean"] == pytest.approx(4.50)  # 4.50, 4.51, 4.49
    assert (last["low"], last["high"]) == pytest.approx((4.49, 4.51))
    assert entry["curve"]["peak_learning_rate"] == 1e-3
    assert load(study)["baselines"]["unigram_bits_per_byte"] == pytest.approx(3.05)  # half of 6.1


@pytest.mark.slow
def test_a_second_report_is_the_same_to_the_byte(study):
    files = sorted(path for path in study.rglob("*") if path.is_file())
    before = {path: path.read_bytes() for path in files}
    report(study)
    assert {path: path.read_bytes() for path in files} == before


def test_only_timing_depends_on_the_clock_and_nothing_on_the_place(study, tmp_path, undrawn):
    other = write_study(tmp_path / "elsewhere")
    for path in other.glob("*/seed*/result.json"):
        edit(path, timing={"wall_s": 1.0, "tokens_per_s": 5.0})
    report(other)
    assert load(other) != load(study)
    assert strip_timing(load(other)) == strip_timing(load(study))
    text = (study / "results.json").read_text()
    assert text == json.dumps(json.loads(text), sort_keys=True, indent=1, ensure_ascii=False) + "\n"


def test_sentences_say_what_the_numbers_say(study):
    record = load(study)
    assert record["headline"][0] == (
        "At equal FLOPs per token, top1, top2 and hash_random end 0.070 to 0.130 nats per token "
        "below dense; hash_balanced cannot be told apart from dense."
    )
    assert record["headline"][1].startswith("At 3.00 × the FLOPs, dense_total ends 0.200")
    assert record["headline"][3] == (
        "Token tables against a learned router: hash_random cannot be told apart from top1; "
        "hash_balanced cannot be told apart from top1."
    )
    text = " ".join(record["findings"])
    assert (
        "top1 ends 0.1000 nats per token below dense (95 % interval −0.1248 to −0.0752, 3 paired "
        "seeds, 10.0 sd of the paired differences): p = 0.017 by a paired t test with Holm's "
        "correction for 7 comparisons." in text
    )
    assert "hash_balanced cannot be told apart from dense" in text
    assert "top1 0.50 (0.43 to 0.56)" in text
    assert "every arm ends below the unigram entropy (6.1000 nats)" in text
    assert "top1, top2, hash_random and dense_total end below the 5-gram model" in text
    caveats = " ".join(record["caveats"])
    assert "same for every arm (highest 0.001), not tuned per arm" in caveats
    assert "3 seeds per arm" in caveats
    assert "no learned gate" in caveats
    assert "dense_total costs 3.000 × the FLOPs" in caveats
    assert "not a rival at equal cost" in caveats


def test_markdown_and_terminal_tables_have_a_row_per_arm_and_baseline(study):
    text = (study / "results.md").read_text()
    assert "| top1 | 4.5000 ± 0.0100 | −0.1000 [−0.1248, −0.0752] | **lower** |" in text
    assert "| unigram entropy | 6.1000 |" in text
    assert "## Caveats" in text
    lines = table(study).splitlines()
    row = next(line for line in lines if line.startswith("top1"))
    assert row.split()[:4] == ["top1", "4.5000", "±", "0.0100"]
    assert "-0.1000 [-0.1248, -0.0752]" in row
    assert any(line.startswith("5-gram model") for line in lines)
    assert max(map(len, lines)) <= 100


def test_page_is_whole_escaped_and_needs_no_network(study):
    text = (study / "report.html").read_text()
    assert len(text.encode()) < 2_000_000
    page = Page(text)
    assert page.loads == []
    assert all(link.startswith("#") for link in page.links)
    assert "@import" not in text
    assert "url(http" not in text
    assert len(page.ids) == len(set(page.ids))
    assert {link[1:] for link in page.links} <= set(page.ids)
    assert "Do top-k &amp; hash routing" in text
    assert "cpu <2 cores>" in page.text
    assert "--set=train.steps=400" in page.text
    assert "--arms=dense,top1,top2,hash_random,hash_balanced,dense_total" in page.text
    assert page.tags.count("figure") == 6
    assert len(page.labels) == 6
    assert any("top1 −0.1000" in label for label in page.labels)
    assert "prefers-color-scheme: dark" in text
    for colour in ("#1b1b1c", "#fefefd"):  # ink and paper follow the theme
        assert colour not in text


def test_figures_are_written_as_png_and_svg(study):
    names = {path.name for path in (study / "figures").iterdir()}
    stems = ("loss_curves", "loss_by_desk", "expert_load", "desks_by_expert", "loss_against_cost")
    stems += ("loss_against_compute",)
    assert names == {f"{stem}.{kind}" for stem in stems for kind in ("png", "svg")}
    assert all(path.stat().st_size > 5000 for path in (study / "figures").iterdir())
    text = (study / "figures" / "loss_by_desk.svg").read_text()
    assert "dc:date" not in text


def test_import_is_light():
    code = (
        "import sys, experiments.report.report; "
        "heavy = {'scipy', 'matplotlib', 'jax', 'flax'} & set(sys.modules); "
        "sys.exit(', '.join(sorted(heavy)) or None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
