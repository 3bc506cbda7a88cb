"""Reports of a study whose arms were trained at several lengths."""

import json

from experiments.figures.loss_against_compute import LossAgainstCompute
from experiments.figures.loss_by_length import LossByLength
from experiments.report import lengths, report
from experiments.report.compare import compare
from experiments.results.runs import read
from tests.fakes.study import DENSE, GAPS, edit, result_record, write_study

ARMS = ("dense", "dense_total", "top1")


def write(tmp_path):
    """One million tokens with GAPS, and a quarter of that with half of each gap."""
    write_study(tmp_path, ARMS)
    short = write_study(tmp_path / "lengths" / "100", ARMS)
    for arm in ARMS:
        for seed in DENSE:
            record = result_record(arm, seed, DENSE[seed] + GAPS[arm][seed] / 2)
            folder = short / arm / f"seed{seed}"
            (folder / "metrics.jsonl").unlink()
            (folder / "result.json").write_text(json.dumps({**record, "tokens": 250_000}))
    return tmp_path


def test_every_length_is_set_beside_the_others(tmp_path):
    comparison = compare(read(write(tmp_path)))
    assert lengths.heads(comparison) == ["", "0.25 M tokens", "1 M tokens"]
    rows = {row[0]: row[1:] for row in lengths.rows(comparison)}
    # Gaps of top1: -.10, -.11, -.09, so mean -.1 and sd .01; t(.975, 2) = 4.303, / sqrt(3): .0248.
    assert [cell.replace("−", "-") for cell in rows["top1"]] == [
        "-0.050 [-0.062, -0.038]",
        "-0.100 [-0.125, -0.075]",
    ]
    # -.1 of -.2 at either length.
    assert [cell.split()[0] for cell in rows["top1: position"]] == ["0.50", "0.50"]
    line = next(line for line in lengths.lines(comparison) if line.startswith("top1: "))
    assert line == f"top1: {rows['top1'][0]} at 0.25 M tokens, {rows['top1'][1]} at 1 M tokens"
    assert LossByLength().draw(comparison) is not None
    assert "top1 -0.0500 and -0.1000" in LossByLength().alt(comparison).replace("−", "-")


def test_the_whole_report_tells_it_and_a_lost_length_is_named(tmp_path):
    report.report(write(tmp_path))
    told = json.loads((tmp_path / "results.json").read_text())
    assert [one["tokens"] for one in told["by_length"]] == [250_000, 1_000_000]
    assert abs(told["by_length"][0]["differences"]["top1"]["mean"] + 0.05) < 1e-12
    assert "## By length of training" in (tmp_path / "results.md").read_text()
    assert "0.25 M tokens" in (tmp_path / "report.html").read_text()
    edit(tmp_path / "lengths" / "100" / "top1" / "seed0" / "result.json", val_loss="nine")
    problems = compare(read(tmp_path)).problems
    assert any(line.startswith("lengths/100/top1/seed0/result.json: ") for line in problems)
    (tmp_path / "lengths" / "100" / "study.json").write_text("{")
    found = compare(read(tmp_path))
    assert len(found.problems) == 1 and "lengths/100/study.json" in found.problems[0]
    assert not lengths.rows(found) and LossByLength().draw(found) is None


def test_losses_over_seconds_and_flops(tmp_path):
    comparison = compare(read(write_study(tmp_path, ARMS)))
    seconds, flops = LossAgainstCompute().draw(comparison).axes
    ends = {line.get_label(): line.get_xdata()[-1] for line in seconds.lines}
    # 1,000,000 tokens at 9000, 9100 and 9200 a second, 9100 on average: 109.9 s.
    assert abs(ends["dense"] - 1e6 / 9100) < 1e-9
    # Three times 1.6e6 FLOPs for a million tokens: 4.8e12.
    assert abs(flops.lines[0].get_xdata()[-1] - 4.8e-3) < 1e-12
