"""How a run begins: all that can be checked is checked before anything is written."""

import json
import os

import pytest

from experiments.runner import run, workers
from experiments.runner.request import Request
from moe.data import loader
from moe.registry import Mistake
from tests.fakes.data import SyntheticDataset

STUDY = "dense_topk_hash"
SMALL = ("train.batch=2", "data.sequence_length=16", "model.model_width=32")


@pytest.fixture
def trained(monkeypatch):
    """The runs that would have been trained, as (arm, seeds)."""
    found = []

    def here(task, progress, on_log, stopping):
        found.append((task.arm, task.seeds))

    monkeypatch.setattr(workers, "_run_here", here)
    return found


@pytest.fixture
def synthetic(monkeypatch):
    monkeypatch.setattr(loader, "load", lambda data, V: SyntheticDataset(V))


def study(workdir, *overrides, arms=("dense",), seeds=(0,), **more):
    asked = Request(STUDY, workdir, arms, seeds=seeds, overrides=[*SMALL, *overrides], **more)
    run.run(asked, lambda *row: None)


@pytest.mark.parametrize("source", ["folder:{tmp}/txets", "folder:{tmp}", "tfds:no_such_set"])
def test_a_typo_in_the_source_leaves_nothing_and_the_right_word_runs(
    source, tmp_path, monkeypatch, trained
):
    monkeypatch.setenv("MOE_DATA_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "sets"))
    source, workdir = source.replace("{tmp}", str(tmp_path)), tmp_path / "runs"
    with pytest.raises(Mistake, match=f"^data.source={source.replace('+', '.')}: "):
        study(workdir, f"data.source={source}")
    assert not workdir.exists() and not trained
    monkeypatch.setattr(loader, "load", lambda data, V: SyntheticDataset(V))
    study(workdir, f"data.source=folder:{tmp_path}/texts")
    assert trained == [("dense", (0,))] and (workdir / "study.json").exists()


def test_text_that_does_not_fit_leaves_nothing(tmp_path, synthetic, trained):
    with pytest.raises(Mistake, match="^model.moe.router.labels=5: must be 3"):
        words = ("data.source=folder:/texts", "model.moe.router=labelled")
        study(tmp_path / "runs", *words, arms=("top1",))
    assert not (tmp_path / "runs").exists() and not trained


RESULT = {"study": STUDY, "size": "tiny", "arm": "dense", "seed": 0, "val_loss": 4.0}
RESULT |= dict.fromkeys(("params_total", "params_active", "flops_per_token", "tokens", "steps"), 1)
RESULT |= {"val_bits_per_byte": 1.0, "desk_loss": {"a": 4.0}}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("[]", "not a JSON object"),
        (json.dumps(RESULT | {"arm": "top1"}), "arm='top1' where 'dense' belongs"),
        (json.dumps(RESULT | {"seed": 1}), "seed=1 where 0 belongs"),
        (json.dumps(RESULT | {"desk_loss": {"a": "4"}}), "a='4' is neither a number nor null"),
        (json.dumps(RESULT | {"tokens": None}), "tokens=None is not a finite number"),
    ],
)
def test_a_result_that_is_none_is_refused_with_the_remedy(
    content, why, tmp_path, synthetic, trained
):
    """It was taken for a finished run: nothing trained, and no report could use it."""
    result = tmp_path / "dense" / "seed0" / "result.json"
    result.parent.mkdir(parents=True)
    result.write_text(content)
    with pytest.raises(Mistake) as error:
        study(tmp_path)
    assert str(error.value).startswith(f"{result}: {why}") and "\n" not in str(error.value)
    assert str(error.value).endswith("; remove it, and the same command makes it again")
    assert not (tmp_path / "study.json").exists() and not trained
    result.unlink()
    study(tmp_path)
    assert trained == [("dense", (0,))]


def test_what_is_finished_needs_no_text(tmp_path, monkeypatch, trained):
    result = tmp_path / "dense" / "seed0" / "result.json"
    result.parent.mkdir(parents=True)
    result.write_text(json.dumps(RESULT))

    def load(data, vocab_size):
        raise AssertionError("nothing is left to train")

    monkeypatch.setattr(loader, "load", load)
    study(tmp_path)
    assert (tmp_path / "study.json").exists()


@pytest.mark.parametrize("name", ["dense", "dense/seed0", "dense/seed0/checkpoints"])
def test_a_file_where_a_folder_belongs_is_refused(name, tmp_path, synthetic, trained):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text("x")
    with pytest.raises(Mistake, match=f"^{tmp_path / name}: must be a folder; remove it$"):
        study(tmp_path)
    assert not (tmp_path / "study.json").exists() and not trained


@pytest.mark.parametrize("name", ["metrics.jsonl", "experiment.txt", "tokenizer.json"])
def test_another_kind_where_a_file_belongs_is_refused(name, tmp_path, synthetic, trained):
    """A pipe would be waited for without end."""
    run_folder = tmp_path / "dense" / "seed0"
    run_folder.mkdir(parents=True)
    os.mkfifo(run_folder / name)
    with pytest.raises(Mistake, match=f"{name}: must be a plain file; remove it$"):
        study(tmp_path)
    assert not (tmp_path / "study.json").exists() and not trained


@pytest.mark.parametrize("seed", [-1, 2**31, 2**63, 1.0, "1"])
def test_a_seed_of_python_has_the_range_of_the_command(seed, tmp_path):
    """jax.random.key takes what int32 holds; a larger one ended in its OverflowError."""
    with pytest.raises(Mistake, match=r"^--seeds=.*: must be whole numbers in \[0, 2\^31\)"):
        Request(STUDY, tmp_path, ("dense",), seeds=(seed,))
    assert Request(STUDY, tmp_path, ("dense",), seeds=(2**31 - 1,)).seeds == (2**31 - 1,)


def test_a_home_is_found(tmp_path, monkeypatch):
    """The shell leaves --workdir=~/runs as it is, and a folder named ~ was made."""
    monkeypatch.setenv("HOME", str(tmp_path))
    asked = Request(STUDY, "~/runs", ("dense",), checkpoints="~/elsewhere")
    assert asked.workdir == tmp_path / "runs"
    assert asked.checkpoints == str(tmp_path / "elsewhere")


def test_memory_is_asked_before_text_and_can_be_ignored(tmp_path, synthetic, trained):
    huge = "train.batch=1073741824", "train.max_epochs=1e9"
    with pytest.raises(Mistake, match="^memory: training dense takes about .* --memory=ignore$"):
        study(tmp_path / "runs", *huge)
    assert not (tmp_path / "runs").exists() and not trained
    study(tmp_path / "runs", *huge, memory="ignore")
    assert trained == [("dense", (0,))]
    with pytest.raises(Mistake, match="^--memory=maybe: must be check or ignore$"):
        study(tmp_path / "runs", memory="maybe")
