"""`show`: every field and cost of an arm, a study as a table, and what cannot be shown."""

import pytest

from moe import registry

STUDY = "dense_topk_hash"
ARMS = (
    "(valid: dense, dense_tokens, dense_total, frozen1, hash2, hash2_e8, hash_balanced, hash_gate, "
    "hash_random, one_expert, top1, top1_gate_one, top1_tokens, top2, top2_e8)"
)

MISTAKES = {  # what is wrong: the words, and the line that must come back
    "show of nothing": ("show", "show: must be 'show STUDY[/ARM]', has 0 words"),
    "one word too many": ("show a b", "show a b: must be 'show STUDY[/ARM]', has 2 words"),
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
        "model.moe.ruoter=top_k: no such field; did you mean 'router'? (valid: dispatch, eval_",
    ),
    "unknown field of all arms": (
        f"show {STUDY} --set train.stepz=3",
        "train.stepz=3: no such field; did you mean 'steps'? (valid: accumulate, batch, ",
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
    "mesh of what is there": (f"show {STUDY} --mesh=auto", "--mesh=auto: show knows no devices"),
    "mesh that does not divide": (
        f"show {STUDY}/top2 --mesh=expert:3",
        "--mesh=expert:3: train.batch=8 must be divisible by data * fsdp * expert=3; nearest ",
    ),
    "slice of no TPU": (f"show {STUDY} --compile-for=v9:2", "--compile-for=v9:2: no such TPU"),
    "source of no kind": (
        f"show {STUDY}/top2 --set data.source=lm1b",
        "data.source=lm1b: unknown; valid: packages, library, folder:PATH, tfds:NAME, ",
    ),
    "no documents": (
        f"show {STUDY}/top2 --set data.max_documents=0",
        "data.max_documents=0: must be >= 1 or none",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_every_mistake_is_one_line(mistake, mistaken):
    mistaken(*MISTAKES[mistake])


def test_show_prints_every_field_and_what_it_costs(call):
    code, out, err = call("show", f"{STUDY}/top2", "--set", "train.steps=123", "--size=tiny")
    assert (code, err) == (0, "")
    lines = dict(line.split(None, 1) for line in out.splitlines() if line.startswith("  "))
    assert lines["train.steps"] == "123"
    assert lines["model.moe.router"] == "TopK" and lines["model.moe.router.k"] == "2"
    assert lines["experts"].replace(",", "").split()[0].isdigit()
    for head in ("parameters: ", "FLOPs per token, forward: ", "memory in training: "):
        assert f"\n{head}" in out


def test_show_tells_the_epochs(call, monkeypatch, tmp_path):
    monkeypatch.setenv("MOE_DATA_DIR", str(tmp_path))
    # 500 steps of 8 windows of 128 tokens are 512,000; of the pinned text 7,565,813 tokens.
    line = "training: 0.07 epochs: 512,000 training tokens, 7,565,813 in one pass\n"
    assert line in call("show", STUDY)[1]
    assert line in call("show", f"{STUDY}/top2")[1]
    unknown = "training: 512,000 tokens; epochs are known when data.source=folder:x was prepared\n"
    assert unknown in call("show", f"{STUDY}/top2", "--set=data.source=folder:x")[1]
    often = call("show", f"{STUDY}/top2", "--set=train.steps=20000")[1]
    # 20,480,000 / 7,565,813 = 2.707
    assert "training: 2.71 epochs: 20,480,000 training tokens, 7,565,813 in one pass; repe" in often
    assert not list(tmp_path.iterdir())


def test_show_of_a_study_sets_its_arms_side_by_side(call):
    code, out, err = call("show", STUDY)
    assert (code, err) == (0, "")
    rows = {line.split()[0]: line for line in out.splitlines() if line}
    study = registry.lookup("study", STUDY)
    assert rows.keys() >= set(dict(study.arms))
    assert " 1.000 " in rows[study.baseline]
