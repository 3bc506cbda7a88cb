"""`bench`: which flags a benchmark takes, and what it hands on."""

import re

import pytest

MISTAKES = {  # what is wrong: the words, and the line that must come back
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
    "benchmark without a baseline": (
        "bench step --arms=top1",
        "--arms=top1: must name dense, the baseline",
    ),
    "benchmark of no size": ("bench step --size=x", "--size=x: no such size (valid: "),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_every_mistake_is_one_line(mistake, mistaken):
    mistaken(*MISTAKES[mistake])


def test_bench_of_steps_hands_on_its_arms_and_asks_for_huge_pages(call, handed_on):
    assert call("bench", "step", "--arms=top1,dense", "--set=train.batch=4")[0] == 0
    (restart, (name, (title, experiments, baseline), named)) = handed_on
    assert restart == ("restart", (), {}) and (name, named) == ("step", {"directory": None})
    assert title == "dense_topk_hash --size=tiny --set train.batch=4" and baseline == "dense"
    assert {arm: one.train.batch for arm, one in experiments.items()} == {"top1": 4, "dense": 4}


def test_bench_of_data_hands_on_the_baseline(call, handed_on, tmp_path):
    words = ("bench", "data", "--set=train.batch=4", f"--workdir={tmp_path}")
    assert call(*words)[0] == 0
    ((name, (title, experiment), named),) = handed_on
    assert (name, title, named) == ("data", "tiny", {"directory": tmp_path})
    assert experiment.model.moe is None and experiment.train.batch == 4


def test_bench_of_routers_takes_no_flag(call, handed_on):
    assert call("bench", "router")[0] == 0
    assert handed_on == [("router", (), {})]


TOY = '''
"""Counts; a toy."""

from absl import flags

from experiments.bench.contract import Benchmark
from moe.registry import register

flags.DEFINE_integer("toy-count", 3, "how far it counts", lower_bound=1)


def act(given):
    print(*range(given.toy_count), given.size)


BENCHMARK = Benchmark(act, flags=("toy-count", "size"), examples=("--toy-count=4",))
register("benchmark", "toy", f"{__name__}:BENCHMARK", "counts")
'''


def test_a_benchmark_is_one_file_and_one_line(call, added):
    added("toy_benchmarks", TOY, "benchmark", "toy")
    assert call("bench", "toy", "--toy-count=4") == (0, "0 1 2 3 tiny\n", "")
    out = call("bench", "--help")[1]
    assert re.search(r"^  toy +counts$", out, re.MULTILINE)
    out = call("bench", "toy", "--help")[1]
    assert re.search(r"^  --toy-count=TOY-COUNT +how far it counts \[3\]$", out, re.MULTILINE)
    line = "error: --set: is no flag of bench toy (valid: --toy-count, --size)\n"
    assert call("bench", "toy", "--set=a=1") == (2, "", line)
    line = "error: --toy-count: is no flag of bench router (valid: none)\n"
    assert call("bench", "router", "--toy-count=1") == (2, "", line)
    line = "error: --toy-count=0: must be a positive integer\n"
    assert call("bench", "toy", "--toy-count=0") == (2, "", line)


def test_the_benchmark_of_the_docs_works(call, added, shown):
    assert "_benchmark(" in shown('_benchmark("sort"')
    register = "from moe.registry import register\nregister('benchmark', 'sort', {}, 'sorting')\n"
    target = "f'{__name__}:BENCHMARK'"
    added("toy_shown", shown("BENCHMARK = ") + register.format(target), "benchmark", "sort")
    code, out, err = call("bench", "sort", "--rows=8")
    assert (code, err) == (0, "") and out.startswith("{'sort': [")
