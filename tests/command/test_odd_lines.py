"""Numbers, paths and files that nobody means: one short line each, at once, and nothing written."""

import json
import os
import re
import time

import pytest

from experiments.runner import workers
from experiments.runner.mistakes import LONGEST
from moe import registry

STUDY = "dense_topk_hash"
LONG = "x" * 100_000
DIGITS = "9" * 4000  # a word may have 4,096 characters, int() reads 4,300 digits
JOIN = "--coordinator=127.0.0.1:1"
RUN = ("run", f"{STUDY}/top2", "--workdir={tmp}/new")
DENSE = ("run", f"{STUDY}/dense", "--workdir={tmp}/new")


def sets(path, value, rule):
    return (*RUN, f"--set={path}={value}"), f"{path}={value}: {rule}"


def studies(name, line):
    """A run into a folder, and the line that it must give."""
    return ("run", f"{STUDY}/dense", f"--workdir={{tmp}}/{name}", "--seeds=0"), line


RANGE = "must be between -2**31 and 2**31"
SEEDS = "must be whole numbers in [0, 2^31) separated by commas"
FLAG = "no such flag (valid: arms, "
HERE = "memory: training top2 takes about "
LINES = {  # what is odd: the words, and the beginning of the line
    # Numbers: each kind has one range, where it is read.
    "seed of 32 bits": ((*DENSE, "--seeds=2147483648"), f"--seeds=2147483648: {SEEDS}"),
    "seed of 4000 digits": ((*DENSE, f"--seeds={DIGITS}"), f"--seeds={DIGITS[:9]}"),
    "profile of 4000 digits": ((*DENSE, f"--profile=1:{DIGITS}"), "--profile=1:999"),
    "jobs of 4000 digits": ((*DENSE, f"--jobs=-{DIGITS}"), "--jobs=-999"),
    "mesh of 4000 digits": ((*RUN, f"--mesh=data:000000001{DIGITS}"), "--mesh=data:000000001999"),
    "steps": sets("train.steps", 2**31, RANGE),
    "layers": sets("model.num_layers", 10**9, "must be in [1, 4096]"),
    "windows": sets("data.held_out_windows", 2**31 - 1, "must be in [1, 2^20]"),
    "documents": sets("data.max_documents", 2**31, RANGE),
    "places of layers": sets("model.moe_layers", "1,2147483648", "")[:1]
    + ("model.moe_layers=2147",),
    "rate above float32": sets(
        "optimizer.learning_rate", "1e+39", "must be 0 or in size a float32"
    ),
    "eps below float32": sets("optimizer.eps", "1e-46", "must be 0 or in size a float32"),
    "infinite clip": sets("optimizer.clip", "1e999", "")[:1] + ("optimizer.clip=inf: must be",),
    # Sizes that no memory holds, from the account of costs.
    "width": ((*RUN, "--set=model.model_width=2147483646"), HERE),
    "heads": ((*RUN, "--set=model.attention.num_heads=1073741824"), HERE),
    "experts": ((*RUN, "--set=model.moe.num_experts=2147483647"), HERE),
    "batch": ((*RUN, "--set=train.batch=2147483647"), HERE),
    "length": ((*RUN, "--set=data.sequence_length=2147483647"), HERE),
    # Processes.
    "no processes": (
        (*DENSE, JOIN, "--num_processes=0", "--process_id=0"),
        "--num_processes=0: must be in [1, 1048576]",
    ),
    "processes of 33 bits": (
        (*DENSE, JOIN, "--num_processes=8589934592", "--process_id=1"),
        "--num_processes=8589934592: must be in [1, 1048576]",
    ),
    "process below 0": (
        (*DENSE, JOIN, "--num_processes=2", "--process_id=-1"),
        "--process_id=-1: must be in [0, num_processes=2)",
    ),
    "port with zeros before it": (
        (*DENSE, "--coordinator=h:0000011", "--num_processes=1", "--process_id=0"),
        "--coordinator=h:0000011: must be HOST:PORT",
    ),
    "host of two words": (
        (*DENSE, "--coordinator=h h:11", "--num_processes=1", "--process_id=0"),
        "--coordinator=h h:11: must be HOST:PORT",
    ),
    # Flags of absl that are none of ours, and what is too long.
    "a file of flags": (("show", STUDY, "--flagfile={tmp}/precious"), f"--flagfile: {FLAG}"),
    "a file of flags, one dash": (("show", STUDY, "-flagfile={tmp}/x"), f"-flagfile: {FLAG}"),
    "a file of flags without a name": (("list", "--flagfile"), f"--flagfile: {FLAG}"),
    "undefined flags": (("list", "--undefok=x"), f"--undefok: {FLAG}"),
    "a flag of 4000 letters": (("list", f"--{LONG[:4000]}"), "--xxx"),
    "100 KB": (("list", LONG), "xxx"),
    "100 KB of a path": (("run", STUDY, f"--workdir={LONG}"), "--workdir=xxx"),
    "100 KB of a field": (("show", STUDY, f"--set=model.num_layers={LONG}"), "--set=model."),
    "4000 letters to be liked": (("list", LONG[:4000]), "list xxx"),
    "no UTF-8": (("report", "{tmp}/\udcff"), "{tmp}/\\udcff: must be text in UTF-8"),
    # Paths.
    "a user who is not there": (
        ("run", STUDY, "--workdir=~no_such_user/x"),
        "--workdir=~no_such_user/x: there is no user ~no_such_user",
    ),
    "text of a user who is not there": (
        (*DENSE, "--set=data.source=folder:~no_such_user"),
        "data.source=folder:~no_such_user: there is no user",
    ),
    "a name that is too long": (("diff", f"{STUDY}/top1", "y" * 300), "diff yyy"),
    "a report of such a name": (("report", "y" * 300), "report yyy"),
    "a loop of links": (("report", "{tmp}/loop"), "report {tmp}/loop: is no path here (Too many"),
    "a loop to train in": (
        ("run", STUDY, "--workdir={tmp}/loop/x"),
        "--workdir={tmp}/loop/x: is no",
    ),
    "a pipe to report": (("report", "{tmp}/pipe"), "report {tmp}/pipe: is no folder"),
    "a pipe to train in": (
        ("run", STUDY, "--workdir={tmp}/pipe"),
        "--workdir={tmp}/pipe: {tmp}/pipe",
    ),
    "escapes of a terminal": (("report", "\x1b[31m"), "report \\x1b[31m: does not exist"),
    # Files of a study.
    "a pipe for study.json": studies("pipes", "{tmp}/pipes/study.json: is damaged (is no plain"),
    "study.json too deep": (("report", "{tmp}/deep"), "{tmp}/deep/study.json: not JSON (nested"),
    "an arm that is a path": (("report", "{tmp}/evil"), "{tmp}/evil/study.json: arms has '../x'"),
    "seeds that are text": studies("texts", "{tmp}/texts/study.json: is damaged (seeds must be"),
    "an arm that is a file": studies("arms", "{tmp}/arms/dense: must be a folder; remove it"),
    "a lock that is a link": studies("locked", "{tmp}/locked/.lock: is no plain file"),
    "an empty result": studies("empty", "{tmp}/empty/dense/seed0/result.json: not JSON"),
    "a result that is a folder": studies("folder", "{tmp}/folder/dense/seed0/result.json: must be"),
    "a record of other bytes": studies(
        "bytes", "{tmp}/bytes/dense/seed0/experiment.txt: is no text"
    ),
    "a record too deep": (
        ("diff", f"{STUDY}/top1", "{tmp}/nested"),
        "{tmp}/nested/experiment.txt: is not the record of an experiment (",
    ),
    "a source that is not there": (
        (*DENSE, "--set=data.source=folder:{tmp}/nowhere"),
        "data.source=folder:{tmp}/nowhere: does not exist",
    ),
}


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """The folder that the lines name {tmp}."""
    tmp = tmp_path_factory.mktemp("odd")
    study = registry.lookup("study", STUDY)
    good = {"study": STUDY, "size": "tiny", "question": study.question, "baseline": "dense"}
    good |= {"arms": {"dense": "a line"}, "seeds": [0], "overrides": []}

    def put(path, content=b""):
        (tmp / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp / path).write_bytes(content if isinstance(content, bytes) else content.encode())

    put("precious", "precious")
    (tmp / "loop").symlink_to("loop")
    os.mkfifo(tmp / "pipe")
    for name, changes in {
        "evil": {"arms": {"../x": "a line"}},
        "texts": {"seeds": ["0"]},
        **dict.fromkeys(("arms", "locked", "empty", "folder", "bytes"), {}),
    }.items():
        put(f"{name}/study.json", json.dumps(good | changes))
    (tmp / "pipes").mkdir()
    os.mkfifo(tmp / "pipes/study.json")
    put("deep/study.json", "[" * 100_000)
    put("arms/dense")
    (tmp / "locked/.lock").symlink_to(tmp / "precious")
    put("empty/dense/seed0/result.json")
    (tmp / "folder/dense/seed0/result.json").mkdir(parents=True)
    put("bytes/dense/seed0/experiment.txt", b"\xff")
    put("nested/experiment.txt", "-" * 100_000 + "1")
    return tmp


@pytest.fixture
def untrained(monkeypatch, odd):
    """Lets a run come as far as its processes, with a cache of data that is empty."""

    def begin(tasks, jobs, progress, stopping):
        raise AssertionError("it would have trained")

    monkeypatch.setattr(workers, "_run_processes", begin)
    monkeypatch.setattr(workers, "_accelerator", lambda: False)
    monkeypatch.setenv("MOE_DATA_DIR", str(odd / "cache"))


@pytest.mark.parametrize("name", LINES)
def test_an_odd_line_is_one_short_line_at_once(name, call, odd, untrained, monkeypatch):
    words, line = LINES[name]
    if name == "a lock that is a link":  # it is taken when the text is there
        monkeypatch.setattr(workers, "_prepare", lambda tasks, counted: None)
    before = time.monotonic()
    code, out, err = call(*(word.replace("{tmp}", str(odd)) for word in words))
    assert (code, out) == (2, "")
    said = err.removeprefix("corpus, tokeniser and baselines (about a minute the first time)\n")
    assert said.startswith("error: " + line.replace("{tmp}", str(odd))), said[:300]
    assert said.count("\n") == 1 and said.endswith("\n") and len(said) < LONGEST + 100
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", said)
    assert time.monotonic() - before < 5  # far less, but JAX may be imported here
    assert not (odd / "new").exists() and (odd / "precious").read_text() == "precious"
