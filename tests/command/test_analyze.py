"""`analyze`: traces of a run, a checkpoint, a study; its checks; every mistake is one line."""

import dataclasses
import json

import pytest

from experiments.results import recorded
from moe import fields
from moe.analysis import trace
from moe.checkpoint.format import Identity
from moe.checkpoint.history import Checkpoints
from moe.data import loader
from moe.registry import Mistake
from moe.routers.hash import Hash
from moe.routers.top_k import TopK
from moe.training import step
from tests.fakes.data import SyntheticDataset
from tests.training.test_train import DATASET, experiment

OF = {"dense": None, "hash": Hash(), "top2": TopK(k=2)}


def write_run(directory, run, steps=(0,), data="synthetic"):
    """The folder of a run with a checkpoint at each step; the loss of step s is 5 + s."""
    directory.mkdir(parents=True)
    text = fields.expression(run)
    (directory / "experiment.txt").write_text(text)
    identity = Identity(text, data, DATASET.tokenizer_fingerprint)
    kept = Checkpoints(directory / "checkpoints", identity, keep_last=9)
    state = step.init(run, DATASET.corpus)
    for number in steps:
        moved = {**state.params, "embedding_VD": state.params["embedding_VD"] * (1 + number)}
        kept.save(number, state.replace(params=moved), 5.0 + number)
    kept.close()


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Three arms, of which two have a routing to trace; top2 has three checkpoints."""
    directory = tmp_path_factory.mktemp("study")
    for arm, router in OF.items():
        run = dataclasses.replace(experiment(router), seed=3)
        write_run(directory / arm / "seed3", run, (0, 1, 7) if arm == "top2" else (0,))
    return directory


@pytest.fixture(autouse=True)
def _synthetic(monkeypatch):
    monkeypatch.setattr(loader, "load", lambda data, V: SyntheticDataset(V, data.sequence_length))


def test_a_study_is_traced_run_by_run(study, call):
    code, out, err = call("analyze", str(study), "--tokens=96")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert [line.split(":")[0].removeprefix(str(study)) for line in lines] == [
        "/dense/seed3",
        "trace",
        "trace",
        "page",
    ]
    assert lines[3] == f"page: {study / 'routing.html'}: runs: 2, tokens: 96"
    assert "left out: model.moe=none: a dense model has no routing to trace" in lines[0]
    path = study / "top2" / "seed3" / "trace.parquet"
    assert lines[2].startswith(f"trace: {path}: top2 seed 3, step 7: 96 tokens, 2 MoE layers, ")
    about = trace.validate(path)
    assert (about.arm, about.seed, about.step, about.num_layers) == ("top2", 3, 7, 2)
    assert recorded.experiment(about.experiment, "x") == recorded.experiment(
        (path.parent / "experiment.txt").read_text(), "x"
    )
    assert about.vocabulary[3] == "d" and about.desks == DATASET.desks
    other = trace.about(study / "hash" / "seed3" / "trace.parquet")
    assert other.text == about.text and other.parameters != about.parameters
    code, out, err = call("analyze", str(path.parent), "--validate")
    assert (code, out, err) == (0, f"{path}: sound: top2 seed 3, step 7\n", "")
    foreign = study / "hash" / "seed3"
    code, out, err = call("analyze", str(foreign), "--validate", f"--out={path}")
    assert (code, out) == (2, "") and err.count("\n") == 1
    assert err.startswith(f"error: {path}: is of another model, top2 seed 3 step 7 with ")


def test_a_checkpoint_is_traced_by_its_step(study, call, tmp_path):
    run, text = study / "top2" / "seed3", tmp_path / "book.txt"
    text.write_text("abc\n" * 20)
    word = f"--text={text}"
    for words, name, number in (
        ([run, "--step=best"], run / "trace-best.parquet", 0),
        ([run, "--step=1"], run / "trace-1.parquet", 1),
        ([run / "checkpoints" / "7"], run / "trace-7.parquet", 7),
        ([run, f"--out={tmp_path / 'own'}"], tmp_path / "own", 7),
    ):
        code, out, err = call("analyze", *map(str, words), word)
        assert (code, err) == (0, "") and out.startswith(f"trace: {name}: top2 seed 3, step")
        about = trace.about(name)
        assert (about.step, about.desks[-1]) == (number, "book")
    found = trace.read(tmp_path / "own")
    assert found.tokens == 80  # 80 letters and the end are 5 windows of 16 and the last target
    assert set(found.desk_T) == {3} and set(found.document_T) == {0}


def test_metrics_are_written_beside_the_trace(study, call):
    run = study / "top2" / "seed3"
    assert call("analyze", str(run), "--step=1", "--tokens=96", "--metrics")[0] == 0
    found = json.loads((run / "metrics-1.json").read_text(), parse_constant=pytest.fail)
    assert found["label"] == "top2 seed 3" and found["tokens"] == 96
    about = trace.about(run / "trace-1.parquet")
    assert (found["text"], found["parameters"]) == (about.text, about.parameters)
    # Two choices of each token, so that a pair of experts is all that co-activation has.
    (rows,) = [row["value"] for row in found["metrics"]["coactivation"].values()][:1]
    assert len(rows) == 2 and all(0 < value <= 1 for value in rows)


def test_a_folder_of_text_has_its_own_desks(study, call, tmp_path):
    for desk, letters in (("twos", "ab"), ("odd", "cd")):
        (tmp_path / "texts" / desk).mkdir(parents=True)
        (tmp_path / "texts" / desk / "one.txt").write_text(letters * 20)
    out = tmp_path / "own"
    words = [str(study / "hash" / "seed3"), f"--text={tmp_path / 'texts'}", f"--out={out}"]
    assert call("analyze", *words)[0] == 0
    found = trace.read(out)
    assert found.about.desks == (*DATASET.desks, "odd")
    # The files in their order: 41 tokens of "odd" with the end, then "twos", which is desk 1.
    assert found.desk_T.tolist() == [3] * 41 + [1] * 39
    assert found.document_T.tolist() == [0] * 41 + [1] * 39


MISTAKES = {
    "no folder": ("analyze {tmp}/none", "analyze {tmp}/none: does not exist; it takes"),
    "a file": ("analyze {tmp}/file", "analyze {tmp}/file: is a file; it takes"),
    "no run": ("analyze {tmp}/empty", "analyze {tmp}/empty: holds no run; it takes"),
    "no word": ("analyze", "analyze: must be 'analyze RUN [RUN...]', has 0 words"),
    "no checkpoint": ("analyze {tmp}/broken", "{tmp}/broken/checkpoints: step=newest: no such"),
    "a step": ("analyze {tmp}/broken --step=last", "--step=last: must be newest, best or a whole"),
    "tokens": ("analyze {tmp}/broken --tokens=0", "--tokens=0: must be"),
    "another place": ("analyze {tmp}/broken --out={tmp}/no/t", "--out={tmp}/no/t: there is no fol"),
    "no trace": ("analyze {tmp}/file --validate", "{tmp}/file: is cut off, or no Parquet file"),
    "no trace of a run": (
        "analyze {tmp}/broken --validate",
        "{tmp}/broken/trace.parquet: cannot be read (No such file or directory)",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_every_mistake_is_one_line(mistake, mistaken):
    mistaken(*MISTAKES[mistake])


def test_mistakes_about_a_run_are_one_line(study, call, tmp_path):
    run, dense = (str(study / arm / "seed3") for arm in ("hash", "dense"))
    write_run(tmp_path / "run", experiment(Hash()), data="another")
    (tmp_path / "bytes").write_bytes(b"\xff" * 40)
    for words, line in (
        ([dense], "model.moe=none: a dense model has no routing to trace"),
        ([run, run, "--out=x"], "--out=x: takes one run, 2 are named"),
        ([dense, dense], "analyze: none of 2 runs could be traced"),
        ([run, "--step=4"], f"{run}/checkpoints: step=4: no such checkpoint (valid: 0)"),
        ([f"{run}/checkpoints/0", "--step=1"], f"--step=1: {run}/checkpoints/0 is one checkpoint"),
        ([run, f"--text={tmp_path / 'no'}"], f"--text={tmp_path / 'no'}: does not exist"),
        ([run, f"--text={tmp_path / 'bytes'}"], f"{tmp_path / 'bytes'}: is no text in UTF-8"),
        ([str(tmp_path / "run")], f"{tmp_path}/run/checkpoints/0: data=another: must be synthetic"),
    ):
        code, _, err = call("analyze", *words)
        assert code == 2 and err.startswith(f"error: {line}") and err.count("\n") == 1, err


def test_a_record_is_read_and_not_run():
    run = experiment(TopK(k=2))
    text = fields.expression(run)
    assert recorded.experiment(text, "x") == run
    moved = text.replace("from moe.routers.top_k import", "from moe.routers.elsewhere import")
    assert moved != text and recorded.experiment(moved, "x") == run
    for wrong, why in (
        ("", "list index out of range"),
        ("x = 1", "it ends in no expression"),
        ("1", "it is none"),
        ("print('a')", "a call that is no record"),
        ("Data(**{})", "a call that is no record"),
        ("from os import system\n\nsystem(command='true')", "there is no class system"),
        ("from moe.data.data import Data\n\nData(nothing=1)", "unexpected keyword argument"),
        ("-" * 100_000 + "1", ""),
    ):
        with pytest.raises(Mistake, match="^x: is not the record of an experiment") as told:
            recorded.experiment(wrong, "x")
        assert why in str(told.value) and "\n" not in str(told.value)
