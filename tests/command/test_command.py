"""Tests of the command: what it prints, what it hands on, and one line for every mistake."""

import errno
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
import types

import pytest
from absl import flags
from absl.testing import flagsaver

from experiments import __main__ as command
from experiments.bench import router
from experiments.command import listing
from moe import fields, registry

ROOT = pathlib.Path(__file__).parents[2]
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
    "no command": ("", "COMMAND: is missing (valid: list, show, run, report, diff, bench, data); "),
    "unknown command": (
        "rnu x",
        "rnu: no such command; did you mean 'run'? (valid: bench, data, diff, ",
    ),
    "show of nothing": ("show", "show: must be 'show STUDY[/ARM]', has 0 words"),
    "one word too many": ("show a b", "show a b: must be 'show STUDY[/ARM]', has 2 words"),
    "two words too many": ("diff a b c d", "diff a b c d: must be 'diff A B', has 4 words"),
    "half a diff": ("diff a", "diff a: must be 'diff A B', has 1 word"),
    "kind misspelt": (
        "list ruoters",
        "list ruoters: no such name; did you mean 'routers'? (valid: ",
    ),
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
        "--workdir: is no flag of show (valid: --size, --set, --mesh, --compile-for)",
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
        f"show {STUDY}/top2 --set model.moe.router=hash_radnom",
        "model.moe.router=hash_radnom: no such router; did you mean 'hash_random'? (valid: ",
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
    "mesh to show": (f"show {STUDY} --mesh=data:2", "--mesh=data:2: show takes it beside"),
    "slice of no TPU": (f"show {STUDY} --compile-for=v9:2", "--compile-for=v9:2: no such TPU"),
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
    "unknown benchmark": (
        "bench speed",
        "bench speed: no such benchmark (valid: data, groups, layer, router, step)",
    ),
    "benchmark of no shape": ("bench layer --shape=1,2", "--shape=1,2: must be five ints T,D,F,E"),
    "benchmark of no skew": (
        "bench layer --skews=zpif",
        "--skews=zpif: no such skew; did you mean 'zipf'?",
    ),
    "benchmark of no dtype": (
        "bench layer --dtype=fp16",
        "--dtype=fp16: no such dtype; did you mean 'bf16'?",
    ),
    "shapes of steps": (
        "bench step --shape=1,2,3,4,1",
        "--shape: is no flag of bench step (valid: --size, --arms, --set, --workdir)",
    ),
    "benchmark misspelt": (
        "bench ruoter",
        "bench ruoter: no such benchmark; did you mean 'router'?",
    ),
    "size of all routers": (
        "bench router --size=tiny",
        "--size: is no flag of bench router (valid: none)",
    ),
    "data of no action": ("data show x", "data show: no such action (valid: prepare)"),
    "data of no name": ("data prepare", "data prepare: must be 'data prepare NAME', has 1 word"),
    "data of a wrong name": ("data prepare a+b", "data prepare a+b: must be NAME, NAME/CONFIG or "),
    "data with a flag": (
        "data prepare lm1b --size=tiny",
        "--size: is no flag of data (valid: none)",
    ),
    "source of no kind": (
        f"show {STUDY}/top2 --set data.source=lm1b",
        "data.source=lm1b: unknown; valid: packages, folder:PATH, tfds:NAME, ",
    ),
    "no documents": (
        f"show {STUDY}/top2 --set data.max_documents=0",
        "data.max_documents=0: must be >= 1 or none",
    ),
    "benchmark without a baseline": (
        "bench step --arms=top1",
        "--arms=top1: must name dense, the baseline",
    ),
    "benchmark of no size": ("bench step --size=x", "--size=x: no such size (valid: "),
}

# The same for the parts of a MoE layer: what is wrong, the fields set on top2, the line.
WRONG_FIELDS = {
    "fewer experts than k": (
        "model.moe.router=olmoe model.moe.num_experts=4",
        "model.moe.router.k=8: must be in [1, num_experts=4]",
    ),
    "a second second expert": (
        "model.moe.router=gshard model.moe.router.k=3",
        "model.moe.router.k=3: must be 2 for gshard",
    ),
    "groups that do not divide": (
        "model.moe.router=deepseek_v2 model.moe.num_experts=12",
        "model.moe.router.groups=8: must divide num_experts=12",
    ),
    "more groups kept than there are": (
        "model.moe.router.groups=4 model.moe.router.groups_kept=5",
        "model.moe.router.groups_kept=5: must be in [1, groups=4]",
    ),
    "no group kept": (
        "model.moe.router.groups=4 model.moe.router.groups_kept=0",
        "model.moe.router.groups_kept=0: must be in [1, groups=4]",
    ),
    "k beyond the groups kept": (
        "model.moe.router.groups=8 model.moe.router.k=3",
        "model.moe.router.k=3: 1 groups of 2 experts hold fewer",
    ),
    "experts that pick tokens": (
        "model.moe.router=expert_choice",
        "model.moe.router=ExpertChoice: sees later tokens, so the loss of a language model is too",
    ),
    "the next token as key": ("model.moe.router=hash_oracle", "model.moe.router=Hash: sees later "),
    "a non-causal layer": (
        "model.layout=first model.layout.router_there=soft",
        "model.layout.router_there=Soft: sees later tokens",
    ),
    "table of tokens with another key": (
        "model.moe.router=hash_clustered model.moe.router.key=previous",
        "model.moe.router.table=ClusteredTable: groups token ids, so it needs key=token",
    ),
    "slots of a dispatcher below 0": (
        "model.moe.dispatch=einsum model.moe.dispatch.capacity_factor=-1",
        "model.moe.dispatch.capacity_factor=-1.0: must be a number > 0",
    ),
    "slots of a router below 0": (
        "allow_noncausal=true model.moe.router=expert_choice model.moe.router.capacity_factor=-1",
        "model.moe.router.capacity_factor=-1.0: must be a number > 0",
    ),
    "router misspelt": (
        "model.moe.router=sinkhron",
        "model.moe.router=sinkhron: no such router; did you mean 'sinkhorn'? (valid: base, ",
    ),
    "score misspelt": (
        "model.moe.router.score=sigmiod",
        "model.moe.router.score=sigmiod: no such score; did you mean 'sigmoid'? (valid: sigmoid, ",
    ),
    "noise misspelt": (
        "model.moe.router.noise=gumble",
        "model.moe.router.noise=gumble: no such noise; did you mean 'gumbel'? (valid: fixed, ",
    ),
    "key misspelt": (
        "model.moe.router=hash_random model.moe.router.key=bigram",
        "model.moe.router.key=bigram: no such key; did you mean 'ngram'? (valid: next, ngram, ",
    ),
    "label misspelt": (
        "model.moe.router=supervised data.label=wrod",
        "data.label=wrod: no such value; did you mean 'word'? (valid: class, desk, ",
    ),
    "loss weight at its old place": (
        "model.moe.router.load_balance=0.1",
        "model.moe.router.load_balance=0.1: no such field",
    ),
    "the softmax of one logit": (
        "model.moe.router.order=choose_first model.moe.router.k=1",
        "model.moe.router.order=choose_first: a softmax over k=1 logit is always 1 and gives the ",
    ),
    "load loss without noise": (
        "model.moe.router.losses.load=0.1",
        "model.moe.router.losses.load=0.1: needs noise with a deviation (valid: noise=fixed, ",
    ),
    "loss weight below 0": (
        "model.moe.router.losses.load_balance=-0.1",
        "model.moe.router.losses.load_balance=-0.1: must be a number >= 0",
    ),
    "guidance below 0": (
        "model.moe.router=supervised model.moe.router.losses.guidance=-1",
        "model.moe.router.losses.guidance=-1.0: must be a number >= 0",
    ),
    "more experts than a label has": (  # 8 // 5 = 1
        "model.moe.router=labelled model.moe.num_experts=8 model.moe.router.k=2",
        "model.moe.router.k=2: must be at most 1, the experts that each of 5 labels has of ",
    ),
    "a layout of more layers": (
        "model.layout=first model.layout.layers=9",
        "model.layout.layers=9: must be in [1, 2 MoE layers]",
    ),
    "a layout of no layers": (
        "model.layout=last model.layout.layers=0",
        "model.layout.layers=0: must be in [1, 2 MoE layers]",
    ),
    "a layout of impossible routers": (
        "model.layout=first model.layout.router_there.k=99",
        "model.layout.router_there.k=99: must be in [1, num_experts=16]",
    ),
    "a layout without MoE": (
        "model.layout=first model.moe=none model.moe_layers=",
        "model.layout: must be none when model.moe is none",
    ),
    "null experts of no kind": (
        "model.moe.null=null model.moe.null.zero=0 model.moe.null.copy=0 model.moe.null.constant=0",
        "model.moe.null: has no expert; set model.moe.null=none for none",
    ),
    "a shared network of no width": (
        "model.moe.shared=ffn model.moe.shared.ffn.width=0",
        "model.moe.shared.ffn.width=0: must be >= 1",
    ),
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


@pytest.mark.parametrize("wrong", WRONG_FIELDS)
def test_every_wrong_field_is_one_line_and_exit_code_2(wrong, call):
    fields, line = WRONG_FIELDS[wrong]
    code, out, err = call("show", f"{STUDY}/top2", *(f"--set={field}" for field in fields.split()))
    assert err.startswith(f"error: {line}") and err.count("\n") == 1 and err.endswith("\n")
    assert (code, out) == (2, "")


@pytest.mark.parametrize("mistake", ["unknown command", "unknown flag", "k too large"])
def test_mistakes_in_a_process_of_their_own(mistake):
    words, line = MISTAKES[mistake]
    done = fresh(*words.split())
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {line}") and done.stderr.count("\n") == 1


def test_an_error_that_is_no_mistake_keeps_its_traceback(call, monkeypatch):
    monkeypatch.setattr(listing, "listing", lambda: int("x"))
    with pytest.raises(ValueError, match="invalid literal"):
        call("list")
    monkeypatch.setattr(listing, "listing", lambda: open("/no/such/file"))
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

    monkeypatch.setattr(listing, "listing", fail)
    assert call("list") == (2, "", "error: [Errno 28] No space left on device: 'runs/x'\n")


def test_an_interrupt_is_one_line_and_exit_code_130(call, monkeypatch):
    def interrupt():
        raise KeyboardInterrupt

    monkeypatch.setattr(listing, "listing", interrupt)
    assert call("list") == (130, "", "error: interrupted; the same command resumes a run\n")


@pytest.mark.slow
@pytest.mark.parametrize("times", [1, 2])
def test_an_interrupted_run_saves_and_the_second_time_ends_at_once(times, tmp_path):
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
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to every process
        if times == 2:
            assert any(line.startswith("stopping: ") for line in process.stderr)
            os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=120)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert out == "" and "Traceback" not in err
    if times == 2:
        assert process.returncode == 130
        assert err.splitlines()[-1] == "error: interrupted; the same command resumes a run"
    else:
        assert process.returncode == 0
        told = re.fullmatch(r"stopped, saved: (.*); the same command resumes", err.splitlines()[-1])
        for run in told[1].split(", "):
            arm, _, _, _, _, step = run.split()
            assert (tmp_path / arm / "seed0/checkpoints" / step).is_dir()


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["run", "--help"], ["--helpfull"]])
def test_help_names_every_command_and_flag(words, call):
    code, out, err = call(*words)
    assert (code, err) == (0, "")
    for name in command.COMMANDS:
        assert f"\n  {name} " in out
    names = ("size", "arms", "seeds", "set", "workdir", "jobs", "profile", "wandb", "mesh")
    for name in (*names, "compile-for"):
        assert f"\n  --{name}=" in out
    assert "examples:" in out and max(map(len, out.splitlines())) <= 100


@pytest.mark.parametrize(
    "words", [["--help"], ["list"], ["list", "hash"], ["list", "dispatchers"], ["show", "x"]]
)
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
    assert set(listing.TITLES) == set(registry.HOMES) - {"study"}
    blocks = {block.split("\n")[0]: block + "\n" for block in out.split("\n\n")}
    for kind in registry.HOMES:
        for name in registry.names(kind):
            block = blocks[listing.TITLES.get(kind, "studies")]
            assert f"\n  {name:<20} {registry.summary(kind, name)}\n" in block
    for arm, line in dict(registry.lookup("study", STUDY).arms).items():
        assert f"\n      {arm:<14} {line}\n" in out


def test_list_filters_by_part_of_a_name_or_pattern(call):
    _, out, _ = call("list", "swi")
    assert "swiglu" in out and "switch" in out and "top_k" not in out and "studies" not in out
    _, out, _ = call("list", "top[12]")
    assert "top1" in out and "top2" in out and "dense_total" not in out and "routers" not in out


def test_list_of_routers_says_what_each_declares(call):
    code, out, err = call("list", "routers")
    assert (code, err) == (0, "")
    head, *lines = [re.split(r"\s{2,}", line) for line in out.splitlines()]
    assert head == ["router", "one line", "paper", "causal", "learned", "needs"]
    rows = {line[0]: line[1:] for line in lines}
    assert tuple(rows) == registry.names("router")
    assert rows["top_k"] == ["softmax, then the k best", "1701.06538", "yes", "yes", "nothing"]
    assert rows["hash_balanced"][1:] == ["2106.04426", "yes", "no", "ids"]
    assert rows["hash_oracle"][2] == rows["soft"][2] == rows["expert_choice"][2] == "no"
    assert rows["sinkhorn"][2] == rows["base"][2] == "evaluation only"
    assert rows["labelled"][3:] == ["yes", "labels"]


@pytest.mark.parametrize("kind", listing.TITLES)
def test_list_of_a_kind_takes_its_name_its_plural_and_its_title(kind, call):
    _, out, _ = call("list", kind)
    names = [line.split()[0] for line in out.splitlines()]
    assert names == [kind, *registry.names(kind)]
    assert call("list", listing.TITLES[kind]) == call("list", f"{kind}s") == (0, out, "")


def test_list_of_a_kind_gives_papers_where_there_are_any(call):
    assert call("list", "dispatchers")[1].splitlines()[0].split() == ["dispatch", "one", "line"]
    rows = [re.split(r"\s{2,}", line) for line in call("list", "shared experts")[1].splitlines()]
    assert rows[:2] == [
        ["shared", "one line", "paper"],
        ["ffn", registry.summary("shared", "ffn"), "2401.06066"],
    ]


def test_list_of_studies_has_nothing_else(call):
    _, out, _ = call("list", "studies")
    assert f"\n  {STUDY} " in out and "hash_balanced" in out and "routers" not in out
    assert call("list", "study")[1] == out


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
        record = fields.expression(study.build(arm, "tiny"))
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
        "bench": {"step": keep("step"), "router": keep("router")},
        "bench_data": {"data": keep("data")},
    }
    for name, functions in parts.items():
        for function, stand_in in functions.items():
            monkeypatch.setattr(f"experiments.{name}.{function}", stand_in)
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
    unset = dict.fromkeys(("mesh", "checkpoints", "profile", "wandb"))
    assert handed_on == [
        ("run", asked, {"jobs": 2, **unset}),
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
    assert handed_on == [("step", ("tiny",), {"overrides": [], "directory": None, "arms": None})]


def test_bench_of_data_hands_on_what_was_asked_for(call, handed_on, tmp_path):
    words = ("bench", "data", "--set=train.batch=4", f"--workdir={tmp_path}")
    assert call(*words)[0] == 0
    assert handed_on == [("data", ("tiny", ["train.batch=4"]), {"directory": tmp_path})]


def test_data_prepare_prints_the_folder(call, monkeypatch):
    from moe.data.sources import catalogue

    monkeypatch.setattr(catalogue, "prepare", lambda name: f"/place/{name}")
    assert call("data", "prepare", "lm1b") == (0, "prepared: /place/lm1b\n", "")


def test_bench_of_routers_takes_no_size(call, handed_on):
    assert call("bench", "router")[0] == 0
    assert handed_on == [("router", (), {})]


def test_bench_of_routers_times_each_against_the_experts(capsys):

    sizes = router.Sizes(B=2, L=16, D=8, E=8, F=8, k=4, V=20)
    names = ("top_k", "gshard", "dense", "hash_previous", "expert_choice", "supervised")
    rows = router.router(sizes, repeats=3, names=names)
    assert tuple(row["router"] for row in rows) == names
    # gshard insists on 2, dense takes all 8, expert choice has a capacity factor of 2 and no k.
    assert [(row["k"], row["as_is"]) for row in rows] == [
        (4, False), (2, True), (8, True), (4, False), (2, True), (4, False),
    ]  # fmt: skip
    assert [row["plan"] for row in rows] == ["Choices"] * 4 + ["Slots", "Choices"]
    assert all(0 < row["low"] <= row["ratio"] <= row["high"] for row in rows)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "routing of 32 tokens, D=8, E=8: 3 repeats in turn"
    assert lines[2].endswith("for 128 rows through SwiGLU, F=8")  # 32 tokens, 4 choices each
    assert [line.split()[0] for line in lines[5:11]] == list(names)
    assert lines[6].endswith("2 as it is") and lines[5].endswith(" 4")
    assert lines[12] == "target: at most 10% for every token-choice router"


def test_bench_of_routers_routes_by_key_and_fills_the_experts():

    sizes = router.Sizes(B=2, L=16, D=8, E=8, F=8, k=4, V=20)
    assert router._experts_call(sizes)().shape == (8, 16, 8)  # 2 * 16 * 4 rows in 8 groups
    plan = router._router_call(registry.lookup("router", "hash_previous"), sizes)()[0]
    # The first tokens of both sequences, 0 and 16, have no token before them: one row of the table.
    assert plan.expert_TK.shape == (32, 1) and plan.expert_TK[0] == plan.expert_TK[16]


def test_flags_do_not_leak_between_calls(call):
    call("show", STUDY, "--size=small", "--set", "train.steps=1")
    assert flags.FLAGS["size"].value == "tiny" and flags.FLAGS["set"].value == []
