"""A study directory with known numbers, and what the tests of its report read from it."""

import dataclasses
import json
import math
from html.parser import HTMLParser
from typing import NamedTuple

from experiments.results.declaration import Declaration
from moe import files

DENSE = {0: 4.60, 1: 4.62, 2: 4.58}  # mean 4.60, sd sqrt((0 + 0.02^2 + 0.02^2) / 2) = 0.02
GAPS = {  # paired difference to dense at seeds 0, 1, 2
    "dense": (0.0, 0.0, 0.0),
    "dense_total": (-0.20, -0.21, -0.19),
    "top1": (-0.10, -0.11, -0.09),
    "top2": (-0.12, -0.13, -0.14),
    "hash_random": (-0.06, -0.07, -0.08),
    "hash_balanced": (-0.02, 0.01, -0.02),
}
LINES = {
    "dense": "one SwiGLU per block",
    "dense_total": "dense with the parameters of the sparse arms",
    "top1": "learned router, one of 8 experts",
    "top2": "learned router, two of 8 experts at half width",
    "hash_random": "fixed random table from token to expert",
    "hash_balanced": "fixed table balanced by token frequency",
}
DESKS = ("drama", "scripture", "geography", "code", "languages")
QUESTION = "Do top-k & hash routing end below a dense model at equal FLOPs?"
EVEN = [0.125] * 8
T2 = 0.95 * (2 / (1 - 0.95**2)) ** 0.5  # 97.5 % point of Student's t, 2 degrees of freedom


class Facts(NamedTuple):
    """What an arm is: cost, size, how unevenly it loads its experts (None: it has none)."""

    flops: float = 1.6e6
    total: int = 2_621_440
    active: int = 1_048_576
    sharpness: float | None = 1.1
    noise: float = 0.002  # of a desk over seeds, against the baseline


FACTS = {
    "dense": Facts(total=1_048_576, sharpness=None, noise=0.0),
    "dense_total": Facts(4.80e6, active=2_621_440, sharpness=None),
    "top1": Facts(1.61e6),
    "top2": Facts(1.605e6),
    "hash_random": Facts(sharpness=0.35),
    "hash_balanced": Facts(sharpness=0.35),
}


def loads(sharpness, shift):
    """Eight shares that sum to 1, uneven by the sharpness."""
    weights = [math.exp(sharpness * math.sin(2.1 * e + shift)) for e in range(8)]
    return [weight / sum(weights) for weight in weights]


def router_record(sharpness=1.1):
    """The `router` of a result.json."""
    desk_load = {
        d: [loads(sharpness, i), loads(1.6 * sharpness, 3 - i)] for i, d in enumerate(DESKS)
    }
    load = [[sum(desk_load[d][n][e] for d in DESKS) / 5 for e in range(8)] for n in range(2)]
    return {
        "layers": [1, 3],
        "num_experts": 8,
        "load_entropy": [0.98, 0.96],
        "max_violation": [8 * max(row) - 1 for row in load],
        "drop_rate": [0.0, 0.01],
        "dead_experts": [0, 1],
        "load": load,
        "desk_load": desk_load,
    }


def result_record(arm, seed, val_loss, facts=None, study="dense_topk_hash"):
    """A result.json; `facts` are those of FACTS where none are given."""
    facts = facts or FACTS.get(arm, Facts())
    return {
        "study": study,
        "size": "tiny",
        "arm": arm,
        "seed": seed,
        "val_loss": val_loss,
        "val_bits_per_byte": None if val_loss is None else val_loss / 2,
        "desk_loss": {}
        if val_loss is None
        else {
            desk: val_loss + 0.1 * (i - 2) + facts.noise * i * seed for i, desk in enumerate(DESKS)
        },
        "desk_tokens": dict.fromkeys(DESKS, 8192),
        "params_total": facts.total,
        "params_active": facts.active,
        "params_by_part": {"embedding": 524_288, "attention_projections": 131_072},
        "flops_per_token": facts.flops,
        "flops_by_part": {"attention_projections": 4e5, "experts": 1e6, "dispatch": 2e5},
        "tokens": 1_000_000,
        "steps": 400,
        "router": None if facts.sharpness is None else router_record(facts.sharpness),
        "baselines": {"unigram_nats": 6.1, "fivegram_nats": 4.58, "by_desk": {}},
        "timing": {"wall_s": 60.5 + seed, "tokens_per_s": 9000.0 + 100 * seed},
        "environment": {
            "python": "3.11.9",
            "jax": "0.10.2",
            "device": "cpu <2 cores>",
            "commit": "0123abc",
            "data_fingerprint": "corpus-1/bpe-2048/split-1",
        },
    }


def metrics_lines(seed, gap, last):
    """The metrics.jsonl of a run that ends at the loss `last`, `gap` away from the baseline."""
    for step in range(10, 401, 10):
        progress = step / 400
        loss = last + 3.2 * math.exp(-6 * progress) + 0.05 * math.sin(step * 0.7 + seed)
        yield {
            "kind": "train",
            "step": step,
            "tokens": 2500 * step,
            "loss": loss + 0.01,
            "nats": loss,
            "learning_rate": 1e-3,
        }
        if step % 50 == 0:
            early = (1 - progress) * (0.03 * math.sin(seed + step) - gap)
            value = last + early + 3.2 * (math.exp(-6 * progress) - math.exp(-6))
            yield {"kind": "eval", "step": step, "tokens": 2500 * step, "val_loss": value}


def write_run(directory, arm, seed, gap, facts=None):
    """The files of one run of the study in the directory; it ends at DENSE and the gap."""
    study = json.loads((directory / "study.json").read_text())["study"]
    folder = directory / arm / f"seed{seed}"
    folder.mkdir(parents=True)
    last = DENSE[seed] + gap
    text = "".join(json.dumps(line) + "\n" for line in metrics_lines(seed, gap, last))
    (folder / "metrics.jsonl").write_text(text)
    (folder / "result.json").write_text(json.dumps(result_record(arm, seed, last, facts, study)))


def write_study(directory, arms=tuple(GAPS), seeds=(0, 1, 2)):
    """A plausible directory of dense_topk_hash; every number follows from the constants above."""
    directory.mkdir(parents=True, exist_ok=True)
    asked = Declaration.of("dense_topk_hash", "tiny", arms, seeds, ["train.steps=400"])
    lines = {arm: LINES.get(arm, "another <arm>") for arm in arms}
    dataclasses.replace(asked, question=QUESTION, arms=lines).write(directory)
    edit(directory / "study.json", arms=lines)
    for arm in arms:
        for seed in seeds:
            write_run(directory, arm, seed, GAPS.get(arm, (-0.05, -0.04, -0.06))[seed])
    return directory


def write_any(directory, declared, gaps, facts):
    """A directory of any study: what it declared, and runs with these gaps to its baseline."""
    directory.mkdir(parents=True, exist_ok=True)
    declared.write(directory)
    for arm in declared.arms:
        for seed in declared.seeds:
            write_run(directory, arm, seed, gaps[arm][seed], facts[arm])
    return directory


def edit(path, **changes):
    """Changes keys of a JSON file, and its seal where it has one: as if it had been written so."""
    content = json.loads(path.read_text())
    sealed = content.pop("seal", None)
    text = files.sealed(content | changes) if sealed else json.dumps(content | changes)
    path.write_text(text)


def load(directory):
    """What results.json says."""
    return json.loads((directory / "results.json").read_text())


class Page(HTMLParser):
    """Collects ids, links and loaded addresses, and checks that tags nest."""

    VOID = ("meta", "br", "link", "img", "input")

    def __init__(self, text):
        super().__init__()
        self.stack, self.ids, self.links, self.loads, self.tags = [], [], [], [], []
        self.text, self.labels = "", []
        self.feed(text)
        self.close()
        assert not self.stack

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append(tag)
        self.ids += [attrs["id"]] if "id" in attrs else []
        target = attrs.get("href", attrs.get("xlink:href", ""))
        self.links += [target] if target else []
        self.loads += [attrs["src"]] if "src" in attrs else []
        self.labels += [attrs["aria-label"]] if attrs.get("role") == "img" else []
        if tag not in self.VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.stack.pop()

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        self.text += data
