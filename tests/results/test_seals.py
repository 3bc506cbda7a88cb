"""What is read as a number is sealed: no digit, no row changes, goes or comes without a word."""

import json
import pathlib
import re

import pytest

from experiments.results import runs
from experiments.results.result import Result
from moe import files
from moe.registry import Mistake
from moe.training import record
from tests.fakes.study import edit, write_study

BEFORE = pathlib.Path(__file__).parents[1] / "golden" / "before_rooms"
EXPECTED = {"study": "dense_topk_hash", "size": "tiny", "arm": "top2", "seed": 0}


@pytest.fixture
def result(tmp_path):
    """A sealed result.json."""
    Result.read(BEFORE / "top2" / "seed0" / "result.json", EXPECTED).write(tmp_path)
    return tmp_path / "result.json"


@pytest.fixture
def metrics(tmp_path):
    """A metrics.jsonl of nine rows, written as a run does."""
    log = record.MetricsLog(tmp_path, resume_step=0)
    for step in range(1, 10):
        log.write({"kind": "train", "step": step, "tokens": 64 * step, "nats": 9.5 - step / 8})
    log.close()
    return tmp_path / "metrics.jsonl"


def told(path):
    """Steps and losses, and what a report says of the file."""
    problems = []
    train, _ = runs._metrics(path.parent, pathlib.Path(path.name), problems)
    return {step: point.nats for step, point in train.items()}, problems


def resumed(path, step):
    """Steps that a run keeps which goes on after `step`, and what it says."""
    log = record.MetricsLog(path.parent, resume_step=step)
    log.close()
    return [row["step"] for row in record.read(path)], list(log.gaps(step))


def test_no_digit_of_a_result_changes_without_a_word(result):
    text = result.read_text()
    whole, silent = Result.read(result, EXPECTED), []
    places = [match.start() for match in re.finditer(r"[0-9]", text)]
    assert len(places) > 2000
    for place in places:
        changed = text[:place] + str((int(text[place]) + 1) % 10) + text[place + 1 :]
        result.write_text(changed)
        try:
            read = Result.read(result, EXPECTED)
        except Mistake:
            continue
        if read != whole:
            silent.append(changed[place - 30 : place + 10])
    assert silent == []


def test_a_whole_record_is_read_without_a_word(metrics):
    losses, problems = told(metrics)
    assert losses == {step: 9.5 - step / 8 for step in range(1, 10)} and problems == []
    assert resumed(metrics, 6) == ([1, 2, 3, 4, 5, 6], [])
    assert told(metrics)[1] == []


@pytest.mark.parametrize("line", range(8))
@pytest.mark.parametrize(
    "damage",
    [
        lambda lines, n: [*lines[:n], *lines[n + 1 :]],
        lambda lines, n: [*lines[: n + 1], *lines[n:]],
        lambda lines, n: [*lines[:n], lines[n + 1], lines[n], *lines[n + 2 :]],
        lambda lines, n: [
            *lines[:n],
            lines[n].replace('"tokens": ', '"tokens": 1'),
            *lines[n + 1 :],
        ],
        lambda lines, n: [*lines[:n], lines[n].replace("nats", "mats"), *lines[n + 1 :]],
        lambda lines, n: [*lines[:n], lines[n].partition(', "seal"')[0] + "}", *lines[n + 1 :]],
        lambda lines, n: [*lines[:n], lines[n][:20], *lines[n + 1 :]],
    ],
    ids=["lost", "doubled", "swapped", "a digit", "a key", "no seal", "cut"],
)
def test_a_damaged_record_is_said_and_shows_only_what_was_measured(metrics, damage, line):
    """Each row's seal holds that of the row before, so a row fits in one place only."""
    lines = metrics.read_text().splitlines()
    metrics.write_text("".join(each + "\n" for each in damage(lines, line)))
    losses, (problem,) = told(metrics)
    assert "does not follow from the line before" in problem
    assert losses.items() <= {step: 9.5 - step / 8 for step in range(1, 10)}.items()
    assert len(losses) >= 6  # no more than the damaged rows and the next are lost
    kept, said = resumed(metrics, 9)
    assert "does not follow from the line before" in said[0] and set(kept) == set(losses)
    assert told(metrics) == (losses, [problem])  # also after it was written again


def test_rows_lost_at_the_end_are_said(metrics):
    """The checkpoint of step 9 is newer than the last row, and the log is of every step."""
    lines = metrics.read_text().splitlines()
    metrics.write_text("".join(line + "\n" for line in lines[:6]))
    kept, (said,) = resumed(metrics, 9)
    assert kept == [1, 2, 3, 4, 5, 6] and "no row after step 6" in said and "of step 9" in said


def test_a_run_that_began_without_seals_goes_on_with_them(metrics):
    lines = [json.loads(line) for line in metrics.read_text().splitlines()[:4]]
    for line in lines:
        del line["seal"]
    metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
    log = record.MetricsLog(metrics.parent, resume_step=3)
    log.write({"kind": "train", "step": 4, "tokens": 256, "nats": 1.0})
    log.write({"kind": "train", "step": 5, "tokens": 320, "nats": 2.0})
    log.close()
    assert told(metrics) == ({1: 9.375, 2: 9.25, 3: 9.125, 4: 1.0, 5: 2.0}, [])
    text = metrics.read_text().replace("1.0", "1.5")
    metrics.write_text(text)
    assert 4 not in told(metrics)[0] and len(told(metrics)[1]) == 1


def test_a_result_that_its_curve_contradicts_is_left_out(tmp_path):
    """Results of before have no seal; the last evaluation has the same loss, to the last bit."""
    directory = write_study(tmp_path, arms=("dense", "top1"))
    assert runs.read(directory).problems == ()
    path = directory / "top1" / "seed1" / "result.json"
    edit(path, val_loss=json.loads(path.read_text())["val_loss"] + 1e-9)
    found = runs.read(directory)
    (problem,) = found.problems
    assert problem.startswith("top1/seed1/result.json: val_loss=") and "left out" in problem
    assert sorted(found.finished("top1")) == [0, 2]


def test_a_curve_without_its_end_is_said(tmp_path):
    directory = write_study(tmp_path, arms=("dense",))
    path = directory / "dense" / "seed1" / "metrics.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("".join(line + "\n" for line in lines[:-1]))
    (problem,) = runs.read(directory).problems
    assert problem.startswith("dense/seed1/metrics.jsonl: has no evaluation of the last step")


def test_a_seal_holds_what_strict_json_holds():
    """What is not finite is null, in the text and in its seal."""
    assert files.unsealed(files.sealed({"a": float("nan"), "b": (1, 2.5)})) == {
        "a": None,
        "b": [1, 2.5],
    }
