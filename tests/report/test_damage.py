"""Tests of the report on files that are foreign, damaged or not there."""

import json
import math

import pytest

from experiments.report.report import report, table
from tests.fakes.study import edit, load, router_record, write_study


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"study": "other"}, "study='other' where 'dense_topk_hash' belongs"),
        ({"size": "base"}, "size='base' where 'tiny' belongs"),
        ({"seed": 4}, "seed=4 where 1 belongs"),
        ({"tokens": 5}, "tokens=5 where its first finished seed has 1000000"),
        ({"environment": {"data_fingerprint": "x"}}, "data_fingerprint=x where the first run has"),
        ({"params_total": "many"}, "params_total='many' is not a finite number"),
        ({"desk_loss": 3}, "desk_loss is not an object"),
        ({"router": {"layers": [1]}}, "router is not as the results format has it"),
    ],
)
def test_foreign_results_are_left_out_by_name(tmp_path, undrawn, changes, message):
    directory = write_study(tmp_path, arms=("dense", "top1"))
    edit(directory / "top1" / "seed1" / "result.json", **changes)
    report(directory)
    record = load(directory)
    assert len(record["problems"]) == 1
    assert record["problems"][0].startswith(f"top1/seed1/result.json: {message}")
    assert record["arms"]["top1"]["seeds_finished"] == [0, 2]


def test_router_lists_must_fit_and_be_finite(tmp_path, undrawn):
    directory = write_study(tmp_path, arms=("dense", "top1"))
    path = directory / "top1" / "seed1" / "result.json"
    edit(path, router=router_record() | {"drop_rate": [0.0]})
    other = directory / "top1" / "seed2" / "result.json"
    edit(other, router=router_record() | {"drop_rate": [0.0, math.nan]})
    (directory / "dense" / "seed0" / "metrics.jsonl").write_text('{"kind": "odd"}\n[]\n')
    (directory / "top1" / "seed0" / "metrics.jsonl").write_bytes(b"\xff\n")
    absent = directory / "dense" / "seed1" / "result.json"
    record = json.loads(absent.read_text())
    del record["val_loss"]
    absent.write_text(json.dumps(record))
    (directory / "dense" / "seed2" / "result.json").write_text("[]")
    report(directory)
    assert [line.split(" ")[0:2] for line in load(directory)["problems"]] == [
        ["dense/seed0/metrics.jsonl:", "line"],
        ["dense/seed1/result.json:", "key"],
        ["dense/seed2/result.json:", "not"],
        ["top1/seed0/metrics.jsonl:", "is"],
        ["top1/seed1/result.json:", "router"],
        ["top1/seed2/result.json:", "router"],
    ]


def test_a_directory_without_a_finished_run_is_one_line(tmp_path):
    with pytest.raises(ValueError, match=r"study\.json: cannot be read .No such file") as error:
        report(tmp_path / "nowhere")
    assert "\n" not in str(error.value)
    directory = write_study(tmp_path / "study", arms=("dense",), seeds=(0,))
    (directory / "dense" / "seed0" / "result.json").write_text("{")
    with pytest.raises(ValueError, match=r"no finished run \(1 started\); dense/seed0/result.json"):
        table(directory)
    edit(directory / "study.json", arms=[])
    with pytest.raises(ValueError, match="arms must map names"):
        report(directory)
    (directory / "study.json").write_text('{"study": "x"}')
    with pytest.raises(ValueError, match=r"study\.json: key 'size' is missing"):
        report(directory)
    (directory / "study.json").write_text("no")
    with pytest.raises(ValueError, match=r"study\.json: not JSON"):
        report(directory)
