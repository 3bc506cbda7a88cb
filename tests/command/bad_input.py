"""Hundreds of bad inputs, made by rule, and the folders that they name."""

import dataclasses
import json
import typing

from experiments.select import resolve
from moe import fields

STUDY = "dense_topk_hash"


@dataclasses.dataclass(frozen=True)
class Bad:
    """A bad input: the words of the command, and what its line must name."""

    words: tuple[str, ...]
    names: str


# Texts that no field of the type can be.
WRONG = {
    int: ("many", "1.5", "", "nan", "1,2"),
    float: ("fast", "", "nan", "1,5"),
    bool: ("yes", "1", ""),
    tuple: ("a,b", "0,x", "1.5", "none", "0;1"),
    str: ("nonsense", "", "NONE"),
    object: ("nonsense", "9", ""),  # a part, by its name
}
# Trees whose fields are tried: the arm, and what is set first.
TREES = {
    "top2": (),
    "hash_balanced": ("model.moe.dispatch=einsum", "model.moe.shared=ffn"),
    "top1": ("model.moe.router=sinkhorn", "model.moe.null=null", "model.moe.dispatch=gather"),
    "dense": ("optimizer.schedule=cosine",),
}
# Values of the right type that are out of range, for any arm that has the field.
OUT_OF_RANGE = {
    "-1": (
        "model.vocab_size model.num_layers model.model_width model.attention.num_heads "
        "model.attention.num_kv_heads model.attention.head_width model.attention.rope_base "
        "model.ffn.width model.moe.num_experts model.moe.router.k model.moe.router.epsilon "
        "model.moe.router.scale model.moe.router.groups model.moe.router.groups_kept "
        "model.moe.router.losses.load_balance model.moe.router.losses.z_loss "
        "model.moe.router.losses.importance model.moe.router.losses.orthogonality "
        "model.moe.router.init_scale model.moe.dispatch.block model.moe.dispatch.tail "
        "model.moe.experts.width model.unroll data.sequence_length data.held_out_windows "
        "optimizer.learning_rate optimizer.weight_decay optimizer.b1 optimizer.b2 optimizer.eps "
        "optimizer.clip optimizer.schedule.warmup optimizer.schedule.decay "
        "optimizer.schedule.final train.steps train.batch train.accumulate train.log_every "
        "train.eval_every train.save_every train.keep_last train.keep_best seed"
    ),
    "0": (
        "model.vocab_size model.num_layers model.model_width model.attention.num_heads "
        "model.attention.num_kv_heads model.attention.head_width model.attention.rope_base "
        "model.ffn.width model.moe.num_experts model.moe.router.k model.moe.router.groups "
        "model.moe.router.groups_kept model.moe.dispatch.block model.moe.experts.width "
        "model.unroll data.sequence_length data.held_out_windows optimizer.learning_rate "
        "optimizer.eps train.steps train.batch train.accumulate train.log_every "
        "train.eval_every train.save_every train.keep_last"
    ),
    "inf": (
        "model.attention.rope_base model.moe.router.epsilon model.moe.router.scale "
        "model.moe.router.losses.load_balance model.moe.router.losses.z_loss "
        "model.moe.router.losses.importance model.moe.router.init_scale optimizer.learning_rate "
        "optimizer.weight_decay optimizer.b1 optimizer.b2 optimizer.eps optimizer.clip "
        "optimizer.schedule.warmup optimizer.schedule.decay optimizer.schedule.final"
    ),
    "99": "model.moe.router.k model.moe.router.groups model.moe_layers",
    "7": "model.attention.num_kv_heads model.attention.head_width train.accumulate",
    "99999999999999999999": (
        "model.vocab_size model.num_layers model.moe.router.k model.unroll train.batch seed"
    ),
    "70000": "model.vocab_size",
    "2": "optimizer.b1 optimizer.b2 optimizer.schedule.warmup optimizer.schedule.decay",
    "0,0": "model.moe_layers",
    "1,0": "model.moe_layers",
}


def kinds(tree, prefix=""):
    """Dotted path -> the type of every field of a tree, None members left out."""
    found = {}
    for field in fields._fields_of(tree):
        value, path = getattr(tree, field.name), prefix + field.name
        annotation = fields._annotation(tree, field)
        members = [a for a in typing.get_args(annotation) if a is not type(None)]
        optional = type(None) in typing.get_args(annotation)
        if typing.get_origin(annotation) is typing.Literal:
            found[path] = str, optional
        elif typing.get_origin(annotation) is tuple:
            found[path] = tuple, optional
        elif annotation in WRONG:
            found[path] = annotation, optional
        elif len(members) == 1 and members[0] in WRONG:
            found[path] = members[0], optional
        else:
            found[path] = object, optional
        if dataclasses.is_dataclass(value):
            found |= kinds(value, path + ".")
    return found


def wrong_fields():
    """Every field with texts of another type, with a field below it, and misspelt."""
    seen = set()
    for arm, first in TREES.items():
        tree = resolve(STUDY, (arm,), "tiny", first)[arm]
        for path, (kind, optional) in kinds(tree).items():
            if (path, kind) in seen:
                continue
            seen.add((path, kind))
            sets = tuple(f"--set={assignment}" for assignment in first)
            texts = [text for text in WRONG[kind] if not (optional and text.lower() == "none")]
            for assignment in [*(f"{path}={text}" for text in texts), f"{path}x=1"]:
                yield Bad(("show", f"{STUDY}/{arm}", *sets, f"--set={assignment}"), assignment)


def out_of_range():
    """Every number with values of its type that it must not have."""
    for text, paths in OUT_OF_RANGE.items():
        for path in paths.split():
            # The line names the field itself, or the one that does not fit it any more.
            yield Bad(("show", f"{STUDY}/top2", f"--set={path}={text}"), path.split(".")[0])


def words():
    """Commands, names, flags, and requests for a run."""
    run = ("run", STUDY, "--workdir={tmp}/new")
    for seeds in ("", "a", "-1", "1.5", "0,0", "0,,1", "1 2", "١", "0x1", "4294967296", "1e3", ","):
        yield Bad((*run, f"--seeds={seeds}"), "--seeds=")
    for arms in ("", "nonsense", "top1,top1", "top1,", "TOP1", "dense;top1", "*", "top1 top2"):
        yield Bad((*run, f"--arms={arms}"), "arm")
    for size in ("", "huge", "TINY", "tiny,small", "0"):
        yield Bad((*run, f"--size={size}"), "--size=")
        yield Bad(("show", STUDY, f"--size={size}"), "--size=")
    for jobs in ("", "-1", "x", "1.5", "1,2", "none"):
        yield Bad((*run, f"--jobs={jobs}"), "--jobs=")
    for profile in ("", "1", "1:", ":2", "0:1", "2:1", "a:b", "1:2:3", "1:999999", "-1:2", "1-2"):
        yield Bad((*run, f"--profile={profile}"), "--profile=")
    for wandb in ("", "a/b", "a:b", "100%"):
        yield Bad((*run, f"--wandb={wandb}"), "--wandb=")
    for place in (
        *("", "gs://bucket/x", "s3://bucket/x", "http://host/x", "file:///x", "{tmp}/file"),
        *("{tmp}/file/below", "{tmp}/nul\0", "{tmp}/" + "long" * 100, "{tmp}/study", "/dev/null"),
        *("{tmp}/no-json", "{tmp}/other", "{tmp}/list", "{tmp}/runs"),
    ):
        yield Bad(("run", STUDY, f"--workdir={place}"), place.split("/")[-1].split("\0")[0][:20])
    for place in (
        *("", "s3://bucket/x", "file:///x", "gs://", "gs:///x", "gs://bucket", "gs://BUCKET/x"),
        *("gs://b/x", "gs://bucket/a b", "gs://bucket/a?b", "gs://bucket//x", "/dev/null/x"),
    ):
        yield Bad((*run, f"--checkpoints={place}"), "--checkpoints=")
    for assignment in ("", "=", "x", "=1", "train.steps", "seed=1", "train..steps=1", ".=1"):
        yield Bad((*run, f"--set={assignment}"), "--set" if "." not in assignment[:6] else "")
    for name in ("", "nonsense", STUDY.upper(), f"{STUDY}/", f"{STUDY}/x", f"{STUDY}/top1/x", "/"):
        yield Bad(("show", name), name.strip("/") or "study=")
        yield Bad(("run", name, "--workdir={tmp}/new"), name.strip("/") or "study=")
    for words in ((), ("nonsense",), ("RUN",), ("",), ("show",), ("show", "a", "b"), ("run",)):
        yield Bad(words, words[0] if words else "COMMAND")
    for words in (("diff",), ("diff", "a"), ("diff", "a", "b", "c"), ("report",), ("bench",)):
        yield Bad(words, words[0])
    for flag in ("sized", "seed", "arm", "Size", "work-dir", "mesh2", "x"):
        yield Bad(("run", STUDY, f"--{flag}=1"), f"--{flag}")
    for flag in ("size", "arms", "seeds", "set", "workdir", "jobs", "profile", "wandb"):
        yield Bad(("list", f"--{flag}=1"), f"--{flag}")
        yield Bad(("show", STUDY, f"--{flag}"), f"--{flag}")
    for pattern in ("nonsense", "[", "top[9]", "no such"):
        yield Bad(("list", pattern), pattern)


def folders():
    """Folders that report and diff cannot read."""
    for name in (
        "none",
        "file",
        "empty",
        "no-json",
        "list",
        "text",
        "keys",
        "arms",
        "seeds",
        "bin",
    ):
        yield Bad(("report", f"{{tmp}}/{name}"), name)
    for name in RESULTS:
        yield Bad(("report", f"{{tmp}}/result {name}"), f"result {name}")
    for name in ("none", "file", "empty", *RECORDS):
        yield Bad(("diff", f"{STUDY}/top1", f"{{tmp}}/{name}"), name)
        yield Bad(("diff", f"{{tmp}}/{name}", f"{STUDY}/top1"), name)


KEYS = {"study": STUDY, "size": "tiny", "question": "?", "baseline": "dense"}
GOOD = {**KEYS, "arms": {"dense": "a line"}, "seeds": [0]}
FILES = {  # study.json of a folder
    "study": json.dumps(GOOD | {"study": "another"}),
    "no-json": "{",
    "list": "[]",
    "text": '"text"',
    "keys": "{}",
    "arms": json.dumps(GOOD | {"arms": ["dense"]}),
    "seeds": json.dumps(GOOD | {"seeds": 3}),
    "other": json.dumps(GOOD | {"size": "small"}),
    "runs": json.dumps(GOOD | {"arms": []}),
    "bin": bytes(range(256)),
}
RESULTS = {  # result.json of the only run of a study
    "empty": "",
    "no json": "{",
    "a list": "[]",
    "no keys": "{}",
    "binary": bytes(range(256)),
    "of another arm": json.dumps(KEYS | {"arm": "top1"}),
}
RECORDS = {  # experiment.txt of a run
    "no text": "",
    "no call": "1 + 1",
    "code": "__import__('os').system('touch harm')",
    "lambda": "Experiment(train=(lambda: 1)())",
    "cut": "Experiment(train=Train(steps=1+",
    "sum": "Experiment(seed=1 + x)",
    "name": "Experiment(seed=x)",
    "deep": "Experiment(train=" + "(" * 300 + ")",
    "bytes": bytes(range(256)),
    "null": "Experiment(\0)",
    "positional": "Experiment(**x)",
}


def make(tmp):
    """The folders that the inputs name {tmp}."""
    (tmp / "file").write_text("x")
    (tmp / "empty").mkdir()

    def put(path, content):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())

    for name, content in FILES.items():
        put(tmp / name / "study.json", content)
    for name, content in RESULTS.items():
        put(tmp / f"result {name}" / "study.json", json.dumps(GOOD))
        put(tmp / f"result {name}" / "dense/seed0/result.json", content)
    for name, content in RECORDS.items():
        put(tmp / name / "experiment.txt", content)


GROUPS = {
    "fields of another type, or misspelt": wrong_fields,
    "numbers out of range": out_of_range,
    "commands, names and flags": words,
    "folders and files": folders,
}
