"""Tests of the command: what it prints, what it hands on, and one line for every mistake."""

import errno
import os
import pathlib
import signal
import subprocess
import sys
import time
import types

import pytest
from absl import flags
from absl.testing import flagsaver

import experiments
from experiments import __main__ as command
from experiments import commands
from moe import registry

ROOT = pathlib.Path(__file__).parent.parent
STUDY = "dense_topk_hash"


@pytest.fixture
def call(capsys):
    """Runs a command line in this process: exit code, stdout, stderr."""

    def run(*words):
        with flagsaver.flagsaver():
            code = command.main(["experiments", *words])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


def fresh(*words):
    """Runs a command line in a process of its own, from the root of the repository."""
    return subprocess.run(
        [sys.executable, "-m", "experiments", *words], cwd=ROOT, capture_output=True, text=True
    )


# What is wrong, the words, and the line that must come back ({tmp} is a temporary folder with a
# file, `file`, an empty folder, `empty`, and a folder with a broken record, `broken`).
ARMS = "(valid: dense, dense_total, hash_balanced, hash_random, top1, top2)"
WHOLE = "must be whole numbers >= 0 separated by commas"
MISTAKES = {
    "no command": ("", "COMMAND: is missing (valid: list, show, run, report, diff, bench); "),
    "unknown command": ("rnu x", "rnu: no such command; did you mean 'run'? (valid: bench, diff, "),
    "show of nothing": ("show", "show: must be 'show STUDY[/ARM]', has 0 words"),
    "one word too many": ("show a b", "show a b: must be 'show STUDY[/ARM]', has 2 words"),
    "two words too many": ("diff a b c d", "diff a b c d: must be 'diff A B', has 4 words"),
    "half a diff": ("diff a", "diff a: must be 'diff A B', has 1 word"),
    "two patterns": ("list a b", "list a b: must be 'list [PATTERN]', has 2 words"),
    "pattern of nothing": ("list toppk", "list toppk: no such name; did you mean 'top_k'? (valid"),
    "unknown study": (
        "show dense_topk",
        f"study=dense_topk: no such study; did you mean '{STUDY}'",
    ),
    "unknown arm": (
        f"show {STUDY}/topp2",
        f"{STUDY}/topp2: no such arm; did you mean 'top2'? {ARMS}",
    ),
    "empty arm": (f"show {STUDY}/", f"{STUDY}/: no such arm {ARMS}"),
    "unknown size": (
        f"show {STUDY} --size=tyni",
        "--size=tyni: no such size; did you mean 'tiny'?",
    ),
    "unknown flag": (f"show {STUDY} --sizee=tiny", "--sizee: no such flag; did you mean 'size'?"),
    "flag of another command": (
        f"show {STUDY} --workdir=x",
        "--workdir: is no flag of show (valid: --size, --set)",
    ),
    "flag where there are none": ("list --size=tiny", "--size: is no flag of list (valid: none)"),
    "flag without a value": (f"show {STUDY} --size", "Missing value for flag --size"),
    "k too large": (
        f"show {STUDY}/top2 --set model.moe.router.k=99",
        "model.moe.router.k=99: must be in [1, num_experts=",
    ),
    "k too large in a study": (
        f"show {STUDY} --set model.moe.router.k=99",
        "model.moe.router.k=99: must be in [1, num_experts=8] (arm top1)",
    ),
    "set without value": (
        f"show {STUDY}/top2 --set train.steps",
        "--set train.steps: must be PATH=VALUE, such as train.steps=200",
    ),
    "set without path": (f"show {STUDY}/top2 --set ==", "--set ==: must be PATH=VALUE, such as "),
    "unknown field": (
        f"show {STUDY}/top2 --set model.moe.ruoter=top_k",
        "model.moe.ruoter=top_k: no such field; did you mean 'router'? (valid: dispatch, experts, ",
    ),
    "unknown field of all arms": (
        f"show {STUDY} --set train.stepz=3",
        "train.stepz=3: no such field; did you mean 'steps'? (valid: accumulate, batch, ",
    ),
    "field of no arm": (
        f"run {STUDY} --workdir={{tmp}}/new --set model.moe.routr.k=1",
        "model.moe.routr.k=1: no such field; did you mean 'router'? (valid: ",
    ),
    "unknown router": (
        f"show {STUDY}/top2 --set model.moe.router=hsah",
        "model.moe.router=hsah: no such router; did you mean 'hash_random'? (valid: ",
    ),
    "field of another arm": (
        f"show {STUDY}/dense --set model.moe.router.k=1",
        "model.moe.router.k=1: model.moe is none and has no fields",
    ),
    "below a leaf": (
        f"show {STUDY}/top2 --set train.steps.x=1",
        "train.steps.x=1: train.steps is of type int and has no fields",
    ),
    "no int": (f"show {STUDY}/top2 --set train.steps=many", "train.steps=many: must be an int"),
    "half a step": (f"show {STUDY}/top2 --set train.steps=1.5", "train.steps=1.5: must be an int"),
    "no steps": (f"show {STUDY}/top2 --set train.steps=0", "train.steps=0: must be >= 1"),
    "no number": (
        f"show {STUDY}/top2 --set optimizer.learning_rate=fast",
        "optimizer.learning_rate=fast: must be a number",
    ),
    "no such choice": (
        f"show {STUDY}/top2 --set data.tokenizer=bite",
        "data.tokenizer=bite: no such value; did you mean 'bytes'? (valid: bpe, bytes)",
    ),
    "a part by value": (f"show {STUDY}/top2 --set train=9", "train=9: has fields; set one of its"),
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
    "jobs is a word": (f"run {STUDY} --jobs=x", "--jobs=x: must be a non-negative integer"),
    "jobs below 0": (f"run {STUDY} --jobs=-1", "--jobs=-1: must be a non-negative integer"),
    "unknown arms": (
        f"run {STUDY} --workdir={{tmp}}/new --arms=top1,hash",
        f"{STUDY}/hash: no such arm; did you mean 'hash_random'? {ARMS}",
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
    "diff of a whole study": (
        f"diff {STUDY} {STUDY}/top1",
        f"diff {STUDY}: must be STUDY/ARM or the folder of a run",
    ),
    "diff of another folder": (
        f"diff {STUDY}/top1 {{tmp}}/empty",
        "diff {tmp}/empty: has no experiment.txt; name a folder ARM/seedN of a run",
    ),
    "diff of a broken record": (
        f"diff {STUDY}/top1 {{tmp}}/broken",
        "{tmp}/broken/experiment.txt: is not the record of an experiment (",
    ),
    "unknown benchmark": ("bench layer", "bench layer: no such benchmark (valid: step)"),
    "benchmark of no size": ("bench step --size=x", "--size=x: no such size (valid: "),
}


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """The folder that MISTAKES names {tmp}."""
    tmp = tmp_path_factory.mktemp("places")
    (tmp / "file").write_text("x")
    (tmp / "empty").mkdir()
    (tmp / "broken").mkdir()
    (tmp / "broken" / "experiment.txt").write_text("Experiment(train=Train(steps=1+")
    return tmp


@pytest.mark.parametrize("mistake", MISTAKES)
def test_every_mistake_is_one_line_and_exit_code_2(mistake, call, places):
    words, line = (text.replace("{tmp}", str(places)) for text in MISTAKES[mistake])
    code, out, err = call(*words.split())
    assert err.startswith(f"error: {line}") and err.count("\n") == 1 and err.endswith("\n")
    assert (code, out) == (2, "")
    assert not (places / "new").exists(), "a mistake leaves nothing behind"


@pytest.mark.parametrize("mistake", ["unknown command", "unknown flag", "k too large"])
def test_mistakes_in_a_process_of_their_own(mistake):
    words, line = MISTAKES[mistake]
    done = fresh(*words.split())
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {line}") and done.stderr.count("\n") == 1


def test_an_error_that_is_no_mistake_keeps_its_traceback(call, monkeypatch):
    monkeypatch.setattr(commands, "listing", lambda: int("x"))
    with pytest.raises(ValueError, match="invalid literal"):
        call("list")
    monkeypatch.setattr(commands, "listing", lambda: open("/no/such/file"))
    with pytest.raises(FileNotFoundError):
        call("list")
    monkeypatch.undo()
    malformed = types.SimpleNamespace(arms=(("an arm without its line",),), sizes=())
    monkeypatch.setattr(registry, "lookup", lambda kind, name: malformed)
    with pytest.raises(ValueError, match="dictionary update sequence"):  # ours, but not raised so
        call("list")


def test_a_full_disk_is_one_line(call, monkeypatch):
    def fail():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "runs/x")

    monkeypatch.setattr(commands, "listing", fail)
    assert call("list") == (2, "", "error: [Errno 28] No space left on device: 'runs/x'\n")


def test_an_interrupt_is_one_line_and_exit_code_130(call, monkeypatch):
    def interrupt():
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "listing", interrupt)
    assert call("list") == (130, "", "error: interrupted; the same command resumes a run\n")


@pytest.mark.slow
def test_an_interrupted_run_ends_all_its_processes_at_once(tmp_path):
    words = ["run", STUDY, f"--workdir={tmp_path}", "--seeds=0"]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a child inherits "ignore"
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "experiments", *words, "--set", "train.steps=1_000_000"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
    finally:
        signal.signal(signal.SIGINT, before)
    try:
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline and not list(tmp_path.glob("*/seed0/metrics.jsonl")):
            assert process.poll() is None, process.communicate()
            time.sleep(0.2)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to every process of the group
        out, err = process.communicate(timeout=30)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 130
    assert out == "" and "Traceback" not in err
    assert err.splitlines()[-1] == "error: interrupted; the same command resumes a run"


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["run", "--help"], ["--helpfull"]])
def test_help_names_every_command_and_flag(words, call):
    code, out, err = call(*words)
    assert (code, err) == (0, "")
    for name in command.COMMANDS:
        assert f"\n  {name} " in out
    for name in ("size", "arms", "seeds", "set", "workdir", "jobs"):
        assert f"\n  --{name}=" in out
    assert "examples:" in out and max(map(len, out.splitlines())) <= 100


@pytest.mark.parametrize("words", [["--help"], ["list"], ["list", "hash"], ["show", "x"]])
def test_answers_without_heavy_imports(words):
    code = (
        "import runpy, sys\n"
        f"sys.argv = ['experiments', *{words!r}]\n"
        "try:\n    runpy.run_module('experiments', run_name='__main__')\n"
        "except SystemExit:\n    pass\n"
        "print(*({'jax', 'flax', 'numpy', 'orbax', 'grain'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stderr.splitlines()[-1] == ""


def test_list_names_all_that_is_registered(call):
    code, out, _ = call("list")
    assert code == 0
    for kind in registry.HOMES:
        for name in registry.names(kind):
            if kind == "size":
                assert name in out
            else:
                assert f"\n  {name:<16} {registry.summary(kind, name)}\n" in out + "\n"
    for arm, line in dict(registry.lookup("study", STUDY).arms).items():
        assert f"\n      {arm:<14} {line}\n" in out


def test_list_filters_by_part_of_a_name_or_pattern(call):
    _, out, _ = call("list", "swi")
    assert "swiglu" in out and "switch" in out and "top_k" not in out and "studies" not in out
    _, out, _ = call("list", "top[12]")
    assert "top1" in out and "top2" in out and "dense_total" not in out and "routers" not in out


def test_show_prints_every_field_and_what_it_costs(call):
    code, out, err = call("show", f"{STUDY}/top2", "--set", "train.steps=123", "--size=tiny")
    assert (code, err) == (0, "")
    lines = dict(line.split(None, 1) for line in out.splitlines() if line.startswith("  "))
    assert lines["train.steps"] == "123"
    assert lines["model.moe.router"] == "TopK" and lines["model.moe.router.k"] == "2"
    assert lines["experts"].replace(",", "").split()[0].isdigit()
    for head in ("parameters: ", "FLOPs per token, forward: ", "memory in training: "):
        assert f"\n{head}" in out


def test_show_of_a_study_sets_its_arms_side_by_side(call):
    code, out, err = call("show", STUDY)
    assert (code, err) == (0, "")
    rows = {line.split()[0]: line for line in out.splitlines() if line}
    study = registry.lookup("study", STUDY)
    assert rows.keys() >= set(dict(study.arms))
    assert " 1.000 " in rows[study.baseline]


def test_diff_of_two_arms_and_of_their_records(call, tmp_path):
    code, of_arms, err = call("diff", f"{STUDY}/top1", f"{STUDY}/top2")
    assert (code, err) == (0, "")
    rows = [line.split() for line in of_arms.splitlines()]
    assert rows[0] == ["field", f"{STUDY}/top1", f"{STUDY}/top2"]
    assert ["model.moe.router.k", "1", "2"] in rows
    assert not any(row[0] == "train.steps" for row in rows)
    study = registry.lookup("study", STUDY)
    for arm in ("top1", "top2"):
        (tmp_path / arm).mkdir()
        record = registry.expression(study.build(arm, "tiny"))
        (tmp_path / arm / "experiment.txt").write_text(record)
        assert call("diff", str(tmp_path / arm), f"{STUDY}/{arm}")[1] == "no field differs\n"
    _, of_records, _ = call("diff", str(tmp_path / "top1"), str(tmp_path / "top2"))
    assert [line.split() for line in of_records.splitlines()[1:]] == rows[1:]


@pytest.fixture
def handed_on(monkeypatch):
    """Stands in for training and reporting; keeps what they were called with."""
    calls = []

    def keep(name, result=None):
        def act(*words, **named):
            calls.append((name, words, named))
            return result

        return act

    parts = {
        "run": {"run": keep("run")},
        "report": {"report": keep("report", "the page"), "table": keep("table", "the table")},
        "bench": {"step": keep("step")},
    }
    for name, functions in parts.items():
        module = types.SimpleNamespace(**functions)
        monkeypatch.setattr(experiments, name, module, raising=False)
    return calls


def test_run_hands_on_what_was_asked_for(call, handed_on, tmp_path):
    workdir = tmp_path / "new"
    code, out, err = call(
        *("run", STUDY, f"--workdir={workdir}", "--arms=top1,dense", "--seeds=4,0"),
        *("--set", "train.steps=5", "--set=model.moe.num_experts=4", "--jobs=2"),
    )
    assert (code, out, err) == (0, "the table\npage: the page\n", "")
    overrides = ("train.steps=5", "model.moe.num_experts=4")
    asked = (STUDY, ("top1", "dense"), "tiny", (4, 0), overrides, workdir)
    assert handed_on == [
        ("run", asked, {"jobs": 2}),
        ("report", (workdir,), {}),
        ("table", (workdir,), {}),
    ]


def test_run_of_one_arm_takes_the_seeds_of_the_study(call, handed_on, tmp_path):
    call("run", f"{STUDY}/top1", f"--workdir={tmp_path}")
    seeds = registry.lookup("study", STUDY).seeds
    assert handed_on[0][1] == (STUDY, ("top1",), "tiny", seeds, (), tmp_path)


def test_report_writes_and_prints_the_table(call, handed_on, tmp_path):
    (tmp_path / "study.json").write_text("{}")
    code, out, _ = call("report", str(tmp_path))
    assert (code, out) == (0, "the table\npage: the page\n")
    assert [name for name, _, _ in handed_on] == ["report", "table"]


def test_bench_hands_on_the_size(call, handed_on):
    assert call("bench", "step", "--size=tiny")[0] == 0
    assert handed_on == [("step", ("tiny",), {})]


def test_flags_do_not_leak_between_calls(call):
    call("show", STUDY, "--size=small", "--set", "train.steps=1")
    assert flags.FLAGS["size"].value == "tiny" and flags.FLAGS["set"].value == []
