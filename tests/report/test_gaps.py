"""Tests of the report on studies with few, odd, broken, foreign or missing runs."""

import json

import pytest

from experiments.report import table as tables
from experiments.report.compare import compare
from experiments.report.report import report, table
from experiments.results.runs import read
from tests.fakes.study import (
    DESKS,
    GAPS,
    Page,
    edit,
    load,
    result_record,
    router_record,
    write_run,
    write_study,
)


def test_a_messy_study_is_drawn_and_every_gap_is_named(tmp_path):
    """Other arms, many experts and layers, a diverged, a killed, an absent and a foreign run."""
    directory = write_study(tmp_path, arms=("dense", "top1", "wide", "<b>odd</b>".replace("/", "")))
    for seed in (0, 1, 2):
        wide = directory / "wide" / f"seed{seed}" / "result.json"
        even, layers = [[1 / 64] * 64] * 6, list(range(6))
        even[2] = [0.0] + [1 / 63] * 63
        stats = {key: [0.5] * 6 for key in ("load_entropy", "max_violation", "drop_rate")}
        desk_load = {desk: even for desk in DESKS}
        router = {"layers": layers, "num_experts": 64, "dead_experts": [0] * 6, "causal": False}
        edit(wide, router=router | stats | {"load": even, "desk_load": desk_load})
    diverged = directory / "top1" / "seed1"
    (diverged / "result.json").unlink()
    with (diverged / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "step": 500, "tokens": 1250000, "nats": NaN, "loss": NaN}\n')
        file.write('{"kind": "tra')
    (directory / "wide" / "seed2" / "result.json").unlink()
    write_run(directory, "extra", 0, -0.3)
    (directory / "extra" / "seed1").mkdir()
    (directory / "extra" / "seed1" / "result.json").write_text("{")
    report(directory)
    record = load(directory)
    assert record["arm_order"][0] == "dense"
    assert record["arms"]["top1"]["verdict"] == "diverged"
    assert record["arms"]["top1"]["val_loss"]["n"] == 2
    assert record["arms"]["top1"]["difference"] is None
    assert record["arms"]["top1"]["val_bits_per_byte"]["mean"] is None
    assert record["arms"]["wide"]["difference"]["n"] == 2
    assert record["arms"]["extra"]["description"] == "not listed in study.json"
    assert any(line.startswith("extra/seed1/result.json: not JSON") for line in record["problems"])
    assert len(record["problems"]) == 1  # a last line cut short is what a killed run leaves
    assert "top1: seed 1 diverged." in record["open_runs"]
    assert "wide: seed 2 not finished." in record["open_runs"]
    assert any("top1 is not judged" in line for line in record["findings"])
    assert any("wide routes with knowledge of later tokens" in line for line in record["caveats"])
    text = table(directory)
    assert "4.4950 ± 0.0071 (seed 1 diverged)" in text  # 4.50, 4.49
    assert "extra/seed1/result.json" in text
    page = Page((directory / "report.html").read_text())
    assert "4 layers of each arm are shown" in page.text
    assert not any(tag == "odd" for tag in page.tags)


def test_a_diverged_result_is_never_averaged(tmp_path, undrawn):
    directory = write_study(tmp_path, arms=("dense", "top1"))
    for seed in (0, 1, 2):
        path = directory / "top1" / f"seed{seed}" / "result.json"
        path.write_text(json.dumps(result_record("top1", seed, None)))
    path = directory / "dense" / "seed2" / "result.json"
    path.write_text(path.read_text().replace('"val_loss": 4.58,', '"val_loss": Infinity,'))
    report(directory)
    record = load(directory)
    assert record["arms"]["top1"]["val_loss"]["mean"] is None
    assert record["arms"]["dense"]["seeds_diverged"] == [2]
    assert record["headline"][0].startswith("There is no comparison yet")
    assert "diverged (seed 0, 1, 2)" in table(directory)


def test_without_the_baseline_or_dense_total_nothing_is_made_up(tmp_path, undrawn):
    directory = write_study(tmp_path, arms=("dense", "top1", "hash_random", "dense_total"))
    for seed in (0, 1, 2):
        (directory / "dense" / f"seed{seed}" / "result.json").unlink()
    report(directory)
    record = load(directory)
    assert record["arms"]["top1"]["verdict"] == "no baseline"
    assert record["arms"]["top1"]["position"]["reason"] == "dense has no finished run"
    assert "top1 has no seed in common with dense, so nothing is compared." in record["findings"]
    assert record["arms"]["dense"]["verdict"] == "missing"
    assert "no finished run" in table(directory)


def test_no_claim_when_the_scale_is_noise(tmp_path, undrawn, monkeypatch):
    monkeypatch.setitem(GAPS, "dense_total", (-0.1, 0.1, -0.05))
    monkeypatch.setitem(GAPS, "top1", (0.2, 0.21, 0.19))
    monkeypatch.setitem(GAPS, "hash_random", (0.05, 0.10, 0.15))  # mean 0.1, sd 0.05: p 0.07
    directory = write_study(tmp_path, arms=("dense", "top1", "hash_random", "dense_total"))
    report(directory)
    record = load(directory)
    assert record["arms"]["top1"]["verdict"] == "higher"
    assert record["headline"][0] == (
        "At equal FLOPs per token, top1 ends 0.200 nats per token above dense; hash_random "
        "cannot be told apart from dense."
    )
    assert record["arms"]["top1"]["position"]["value"] is None
    text = " ".join(record["findings"])
    assert "because dense_total cannot be shown to be below dense" in text
    assert "because top1 cannot be shown to be below dense" in text


def test_what_correction_takes_away_is_not_told(tmp_path, undrawn, monkeypatch):
    # Mean 0.1, sd 0.03: half = T2 * 0.03 / sqrt 3 = 0.0745, so zero is outside of the interval;
    # t^2 = 33.3, p = 1 - sqrt(33.3 / 35.3) = 0.029, times 2 = 0.058.
    monkeypatch.setitem(GAPS, "top1", (-0.07, -0.10, -0.13))
    monkeypatch.setitem(GAPS, "top2", (-0.07, -0.13, -0.10))
    directory = write_study(tmp_path, arms=("dense", "top1", "top2"))
    report(directory)
    record = load(directory)
    assert record["arms"]["top1"]["difference"]["high"] < 0
    assert record["arms"]["top1"]["verdict"] == "not told apart"
    assert record["headline"][0] == (
        "At equal FLOPs per token, top1 and top2 cannot be told apart from dense."
    )
    assert "p = 0.057 by a paired t test with Holm's correction" in record["findings"][0]


def test_unequal_costs_and_rates_are_caveats(tmp_path, undrawn):
    directory = write_study(tmp_path, arms=("dense", "top1"))
    for seed in (0, 1, 2):
        edit(directory / "top1" / f"seed{seed}" / "result.json", flops_per_token=2e6, tokens=5)
        path = directory / "top1" / f"seed{seed}" / "metrics.jsonl"
        path.write_text(
            path.read_text().replace('"learning_rate": 0.001', '"learning_rate": 0.002')
        )
    report(directory)
    caveats = " ".join(load(directory)["caveats"])
    assert "differs between arms (dense 0.001 and top1 0.002)" in caveats
    assert "top1 costs 1.250 × the FLOPs per token of dense." in caveats
    assert "top1 was trained on 5 tokens and dense on 1,000,000" in caveats
    assert load(directory)["headline"][0].startswith("At 1.25 × the FLOPs, top1 ends")
    for path in directory.glob("*/*/metrics.jsonl"):
        path.unlink()
    report(directory)
    assert "learning rate was not recorded" in " ".join(load(directory)["caveats"])


@pytest.mark.parametrize(
    ("declared", "line"),
    [
        ({"causal": True, "causal_in_training": True}, None),
        ({"causal": True}, None),  # older results do not say what happens in training
        ({}, None),
        (
            {"causal": True, "causal_in_training": False},
            "top1 routes with knowledge of later tokens in training alone: its held-out loss is "
            "that of a language model, its training loss is not.",
        ),
        (
            {"causal": False, "causal_in_training": False},
            "top1 routes with knowledge of later tokens (not causal): its loss is not that of a "
            "language model.",
        ),
    ],
)
def test_routers_that_see_later_tokens_are_caveats(tmp_path, undrawn, declared, line):
    directory = write_study(tmp_path, arms=("dense", "top1", "top2"))
    for seed in (0, 1, 2):
        path = directory / "top1" / f"seed{seed}" / "result.json"
        edit(path, router=router_record() | declared)
    report(directory)
    found = [text for text in load(directory)["caveats"] if "later tokens" in text]
    assert found == ([] if line is None else [line])


def test_only_the_baseline_has_finished(tmp_path, undrawn):
    directory = write_study(tmp_path, arms=("dense", "top1"))
    for seed in (0, 1, 2):
        (directory / "top1" / f"seed{seed}" / "result.json").unlink()
    report(directory)
    assert load(directory)["headline"] == [
        "Only dense has finished, so there is nothing to compare yet."
    ]
    assert "top1 has no finished run." in load(directory)["findings"]


def test_cells_name_open_seeds_and_half_dead_experts(tmp_path, undrawn):
    directory = write_study(tmp_path, arms=("dense", "top1"))
    path = directory / "top1" / "seed0" / "result.json"
    edit(path, router=router_record() | {"dead_experts": [1, 1]})
    (directory / "top1" / "seed2" / "result.json").unlink()
    report(directory)
    row = tables.rows(compare(read(directory)))[1]
    assert row["loss"].text == "4.5050 ± 0.0071 (2 of 3 seeds)"  # 4.50, 4.51
    assert row["dead_experts"].text == "1.5"  # (2 + 1) / 2


def test_seeds_that_came_after_the_declaration_are_a_caveat(tmp_path, undrawn):
    directory = write_study(tmp_path, arms=("dense", "top1"), seeds=(0, 1))
    report(directory)
    assert "came after the declaration" not in " ".join(load(directory)["caveats"])
    edit(directory / "study.json", seeds=[0, 1, 2])
    for arm in ("dense", "top1"):
        write_run(directory, arm, 2, GAPS[arm][2])
    report(directory)
    assert (
        "Seed 2 came after the declaration, which named 2: where somebody looked in between, p "
        "values promise less than they say; --until-decided plans its looks."
    ) in load(directory)["caveats"]
