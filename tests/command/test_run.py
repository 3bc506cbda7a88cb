"""`run` and `report`: what they hand on, and what they refuse before anything is written."""

import pytest

from experiments.runner.request import Request
from moe import registry
from moe.devices import processes

STUDY = "dense_topk_hash"
ARMS = (
    "(valid: dense, dense_tokens, dense_total, frozen1, hash2, hash2_e8, hash_balanced, hash_gate, "
    "hash_random, one_expert, top1, top1_gate_one, top1_tokens, top2, top2_e8)"
)
WHOLE = "must be whole numbers in [0, 2^31) separated by commas"

OVERRIDES = ("train.steps=5", "model.moe.num_experts=4")
MISTAKES = {  # what is wrong: the words, and the line that must come back
    "field of no arm": (
        f"run {STUDY} --workdir={{tmp}}/new --set model.moe.routr.k=1",
        "model.moe.routr.k=1: no such field; did you mean 'router'? (valid: ",
    ),
    "run without workdir": (
        f"run {STUDY}",
        f"--workdir: is missing; name a folder, as --workdir=runs/{STUDY}",
    ),
    "workdir is a file": (
        f"run {STUDY} --workdir={{tmp}}/file",
        "--workdir={tmp}/file: {tmp}/file is a file, not a folder",
    ),
    "workdir in a file": (
        f"run {STUDY} --workdir={{tmp}}/file/deep/er",
        "--workdir={tmp}/file/deep/er: {tmp}/file is a file, not a folder",
    ),
    "seed is a word": (f"run {STUDY} --workdir={{tmp}}/new --seeds=0,a", f"--seeds=0,a: {WHOLE}"),
    "seed below 0": (f"run {STUDY} --workdir={{tmp}}/new --seeds=-1", f"--seeds=-1: {WHOLE}"),
    "no seeds": (f"run {STUDY} --workdir={{tmp}}/new --seeds=", f"--seeds=: {WHOLE}"),
    "a seed twice": (
        f"run {STUDY} --workdir={{tmp}}/new --seeds=1,1",
        "--seeds=1,1: names a seed twice",
    ),
    "seed by set": (
        f"run {STUDY} --workdir={{tmp}}/new --set seed=3",
        "--set seed=3: a run takes its seeds from --seeds",
    ),
    "mesh of no axis": (
        f"run {STUDY} --workdir={{tmp}}/new --mesh=date:2",
        "--mesh=date:2: no such axis; did you mean 'data'?",
    ),
    "mesh that experts cannot be split over": (
        f"run {STUDY}/top2 --workdir={{tmp}}/new --mesh=expert:3 --set=train.batch=9",
        "--mesh=expert:3: model.moe.num_experts=16 must be divisible by expert=3; nearest ",
    ),
    "mesh and jobs": (
        f"run {STUDY} --workdir={{tmp}}/new --mesh=data:2 --jobs=2",
        "--jobs=2: on a mesh the arms run one after the other",
    ),
    "process without a coordinator": (
        f"run {STUDY} --workdir={{tmp}}/new --process_id=0",
        "--process_id=0: needs --coordinator=HOST:PORT",
    ),
    "jobs is a word": (f"run {STUDY} --jobs=x", "--jobs=x: must be a non-negative integer"),
    "jobs below 0": (f"run {STUDY} --jobs=-1", "--jobs=-1: must be a non-negative integer"),
    "unknown arms": (
        f"run {STUDY} --workdir={{tmp}}/new --arms=top1,hash",
        f"{STUDY}/hash: no such arm; did you mean 'hash2'? {ARMS}",
    ),
    "an arm twice": (
        f"run {STUDY} --workdir={{tmp}}/new --arms=top1,top1",
        "--arms=top1,top1: names top1 twice",
    ),
    "no arms": (f"run {STUDY} --workdir={{tmp}}/new --arms=", "--arms=: must name some of dense, "),
    "arms of an arm": (
        f"run {STUDY}/top1 --workdir={{tmp}}/new --arms=top2",
        f"--arms=top2: {STUDY}/top1 names an arm already",
    ),
    "report of nothing": (
        "report {tmp}/none",
        "report {tmp}/none: does not exist; it takes the --workdir of a run",
    ),
    "report of a file": (
        "report {tmp}/file",
        "report {tmp}/file: is a file; it takes the --workdir of a run",
    ),
    "report of another folder": (
        "report {tmp}/empty",
        "report {tmp}/empty: has no study.json; it takes the --workdir of a run",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_every_mistake_is_one_line(mistake, mistaken):
    mistaken(*MISTAKES[mistake])


def test_run_hands_on_what_was_asked_for(call, handed_on, tmp_path):
    workdir = tmp_path / "new"
    code, out, err = call(
        *("run", STUDY, f"--workdir={workdir}", "--arms=top1,dense", "--seeds=4,0"),
        *("--set", "train.steps=5", "--set=model.moe.num_experts=4", "--jobs=2"),
    )
    assert (code, out, err) == (0, "the table\npage: the page\n", "")
    assert [name for name, _, _ in handed_on] == ["run", "report", "table"]
    assert [words for _, words, _ in handed_on[1:]] == [(workdir,), (workdir,)]
    (asked,) = handed_on[0][1]
    assert asked == Request(
        STUDY, workdir, ("top1", "dense"), "tiny", (4, 0), overrides=OVERRIDES, jobs=2
    )
    assert list(asked.experiments) == ["top1", "dense"]
    assert asked.experiments["top1"].model.moe.num_experts == 4


def test_run_of_one_arm_takes_the_seeds_of_the_study(call, handed_on, tmp_path):
    call("run", f"{STUDY}/top1", f"--workdir={tmp_path}")
    (asked,) = handed_on[0][1]
    seeds = registry.lookup("study", STUDY).seeds
    assert asked == Request(STUDY, tmp_path, ["top1"], seeds=seeds) and asked.jobs == 0
    unset = (asked.mesh, asked.profile, asked.wandb, asked.checkpoints, asked.overrides)
    assert unset == (None, None, None, None, ())


def test_a_mesh_is_provided_after_the_processes_have_joined(call, handed_on, tmp_path, monkeypatch):
    joined = []
    monkeypatch.setattr(processes, "join", lambda *words: joined.append(words))
    words = ("--coordinator=h:1", "--num_processes=2", "--process_id=1")
    call("run", f"{STUDY}/top1", f"--workdir={tmp_path}", *words)
    (asked,) = handed_on[0][1]
    assert joined == [("h:1", 2, 1)] and (asked.mesh, asked.processes) == ("auto", 2)


def test_report_writes_and_prints_the_table(call, handed_on, tmp_path):
    (tmp_path / "study.json").write_text("{}")
    code, out, _ = call("report", str(tmp_path))
    assert (code, out) == (0, "the table\npage: the page\n")
    assert [name for name, _, _ in handed_on] == ["report", "table"]
