"""What the command prints: listings, the sheet of an arm, the table of a study, differences."""

import ast
import fnmatch
import pathlib
from collections.abc import Collection, Sequence

from experiments.request import parse_name, resolve
from moe import fields, registry
from moe.registry import Mistake

TITLES = {
    "router": "routers",
    "score": "router scores",
    "noise": "router noises",
    "rule": "bias rules",
    "key": "hash keys",
    "table": "hash tables",
    "gate": "hash gates",
    "layout": "layouts",
    "dispatch": "dispatchers",
    "overflow": "overflows",
    "kernel": "grouped products",
    "layer": "MoE layers",
    "experts": "experts",
    "shared": "shared experts",
    "null": "null experts",
    "schedule": "schedules",
    "size": "sizes",
}
_ROUTER_HEAD = ("router", "one line", "paper", "causal", "learned", "needs")


def listing(pattern: str = "") -> str:
    """Studies with arms and sizes, then the registered parts by kind, as far as they match.

    A pattern is a part of a name, a whole one with * and ?, or a kind, by its name or title, which
    is then listed in full. Raises Mistake if none matches.
    """
    if pattern.lower() in ("study", "studies"):
        return "\n".join(["studies", *_study_lines("*")])
    for kind, title in TITLES.items():
        if pattern.lower() in (kind, kind + "s", title.lower()):
            return kind_listing(kind)
    wanted = f"*{pattern}*" if not set(pattern) & set("*?[") else pattern
    blocks = [["studies", *_study_lines(wanted)], *_part_blocks(wanted)]
    found = [block for block in blocks if len(block) > 1]
    if not found:
        seen = {name for kind in registry.HOMES for name in registry.names(kind)}
        seen |= {arm for name in registry.names("study") for arm in _arms(name)}
        valid = seen | set(TITLES.values())
        raise Mistake(f"list {pattern}: {registry.no_such('name', pattern, valid)}")
    return "\n\n".join("\n".join(block) for block in found)


def _arms(study_name: str) -> dict[str, str]:
    """The arms of a study, each with its line."""
    return dict(registry.lookup("study", study_name).arms)


def _study_lines(wanted: str) -> list[str]:
    lines = []
    for name in registry.names("study"):
        arms = _arms(name)
        hits = [arm for arm in arms if fnmatch.fnmatchcase(arm, wanted)]
        if fnmatch.fnmatchcase(name, wanted):
            hits = list(arms)
        if hits:
            sizes = ", ".join(registry.lookup("study", name).sizes)
            lines += [f"  {name:<20} {registry.summary('study', name)}"]
            lines += [f"    sizes: {sizes}", "    arms:"]
            lines += [f"      {arm:<14} {arms[arm]}" for arm in hits]
    return lines


def _part_blocks(wanted: str) -> list[list[str]]:
    """For each kind its title and the lines of the names that match."""
    blocks = []
    for kind, title in TITLES.items():
        hits = [name for name in registry.names(kind) if fnmatch.fnmatchcase(name, wanted)]
        blocks.append([title, *(f"  {name:<20} {registry.summary(kind, name)}" for name in hits)])
    return blocks


def kind_listing(kind: str) -> str:
    """Every registered part of a kind with its paper; routers with what they declare."""
    if kind == "router":
        head, rows = _ROUTER_HEAD, router_rows()
    else:
        head = (kind, "one line", "paper")
        rows = [
            (n, registry.summary(kind, n), registry.paper(kind, n)) for n in registry.names(kind)
        ]
        if not any(paper for _, _, paper in rows):
            head, rows = head[:2], [row[:2] for row in rows]
    return "\n".join(_table([head, *rows], left=range(len(head))))


def router_rows() -> list[tuple[str, ...]]:
    """(name, one line, paper, causal, learned, needs) of every router, which imports them all.

    causal is "yes", "no", or "evaluation only" where training looks at later tokens.
    """
    rows = []
    for name in registry.names("router"):
        router = registry.lookup("router", name)
        causal = "yes" if router.causal_in_training else "evaluation only"
        needs = [what for what in ("ids", "labels") if getattr(router, f"needs_{what}")]
        rows.append(
            (
                name,
                registry.summary("router", name),
                registry.paper("router", name),
                causal if router.causal else "no",
                "yes" if router.learned else "no",
                ", ".join(needs) or "nothing",
            )
        )
    return rows


def study_directory(text: str) -> pathlib.Path:
    """The folder of a study that ran; raises Mistake unless it holds study.json."""
    directory = pathlib.Path(text)
    if not directory.is_dir():
        state = "is a file" if directory.exists() else "does not exist"
        raise Mistake(f"report {text}: {state}; it takes the --workdir of a run")
    if not (directory / "study.json").is_file():
        raise Mistake(f"report {text}: has no study.json; it takes the --workdir of a run")
    return directory


def arm_sheet(study_name: str, arm: str, size: str, overrides: Sequence[str]) -> str:
    """One experiment in full: fields, parameters, FLOPs per token by part, memory."""
    experiment = resolve(study_name, (arm,), size, overrides)[arm]
    from moe.cost import account

    found = account.account(experiment)
    study = registry.lookup("study", study_name)
    leaves = {path: _text(value) for path, value in fields.fields(experiment).items()}
    lines = [f"{study_name}/{arm} --size={size}: {dict(study.arms)[arm]}", "", "fields"]
    lines += _aligned(leaves)
    total, active = found.params_total, found.params_active
    lines += ["", f"parameters: {total:,} in all, {active:,} active for a token"]
    lines += _aligned({part: f"{n:>14,}" for part, n in found.params_by_part.items()})
    lines += ["", f"FLOPs per token, forward: {found.flops_per_token:,.0f} (dispatch apart)"]
    share = {
        p: f"{n:>14,.0f} {n / found.flops_per_token:>6.1%}" for p, n in found.flops_by_part.items()
    }
    lines += _aligned(share)
    memory = found.memory_bytes
    lines += ["", f"memory in training: {_megabytes(sum(memory.values()))}"]
    lines += _aligned({part: f"{_megabytes(n):>14}" for part, n in memory.items()})
    return "\n".join([*lines, *_dispatch_lines(experiment)])


def _dispatch_lines(experiment) -> list[str]:
    """What dispatch "auto" takes here, and why; nothing for other dispatchers."""
    from moe.dispatch.auto import Auto, explain

    moe = experiment.model.moe
    if moe is None or not isinstance(moe.dispatch, Auto):
        return []
    import jax

    K = moe.router.choices(moe.routed_experts, experiment.tokens_per_call)
    return ["", f"dispatch: auto takes {explain(moe.dispatch.choose(K, jax.default_backend()))}"]


def study_table(study_name: str, size: str, overrides: Sequence[str]) -> str:
    """All arms of a study side by side."""
    experiments = resolve(study_name, None, size, overrides)
    from moe.cost import account

    study = registry.lookup("study", study_name)
    accounts = {arm: account.account(experiment) for arm, experiment in experiments.items()}
    base = accounts[study.baseline].flops_per_token
    rows = [("arm", "parameters", "active", "FLOPs/token", f"/ {study.baseline}", "memory")]
    for arm, found in accounts.items():
        rows.append(
            (
                arm,
                f"{found.params_total:,}",
                f"{found.params_active:,}",
                f"{found.flops_per_token:,.0f}",
                f"{found.flops_per_token / base:.3f}",
                _megabytes(sum(found.memory_bytes.values())),
            )
        )
    seeds = ", ".join(map(str, study.seeds))
    head = [f"{study_name} --size={size}: {study.question}", f"seeds {seeds}", ""]
    return "\n".join([*head, *_table(rows, left=(0,))])


def difference(first: str, second: str, size: str) -> str:
    """The fields that differ between two experiments, each a STUDY/ARM or a run's folder."""
    left, right = _fields_named(first, size), _fields_named(second, size)
    absent = object()
    rows = [
        (path, *(_text(side[path]) if path in side else "-" for side in (left, right)))
        for path in {**left, **right}
        if left.get(path, absent) != right.get(path, absent)
    ]
    if not rows:
        return "no field differs"
    return "\n".join(_table([("field", first, second), *rows], left=(0, 1, 2)))


def _fields_named(name: str, size: str) -> dict[str, object]:
    record = pathlib.Path(name) / "experiment.txt"
    if record.is_file():
        return recorded(record)
    if pathlib.Path(name).is_dir():
        raise Mistake(f"diff {name}: has no experiment.txt; name a folder ARM/seedN of a run")
    known = registry.names("study")
    if name.partition("/")[0] not in known:
        raise Mistake(f"diff {name}: {registry.no_such('study or folder', name, known)}")
    study, arms = parse_name(name)
    if arms is None:
        raise Mistake(f"diff {name}: must be STUDY/ARM or the folder of a run")
    return fields.fields(resolve(study, arms, size, ())[arms[0]])


def recorded(record: pathlib.Path) -> dict[str, object]:
    """The fields in an experiment.txt, as `registry.fields` gives them; runs none of its code."""
    leaves = {}

    def collect(call: ast.Call, prefix: str) -> None:
        if call.args or not isinstance(call.func, ast.Name):
            raise Mistake("a call that is no record")
        for keyword in call.keywords:
            path, value = prefix + keyword.arg, keyword.value
            if not isinstance(value, ast.Call):
                leaves[path] = ast.literal_eval(value)
            elif value.func.id == "float":
                leaves[path] = float(value.args[0].value)
            else:
                leaves[path] = value.func.id
                collect(value, path + ".")

    try:
        collect(ast.parse(record.read_text("utf-8")).body[-1].value, "")
    except (SyntaxError, ValueError, AttributeError, IndexError, TypeError) as error:
        raise Mistake(f"{record}: is not the record of an experiment ({error})") from error
    return leaves


def _text(value) -> str:
    """A value as --set would read it."""
    if isinstance(value, tuple):
        return ",".join(map(_text, value)) or "()"
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return str(value)


def _megabytes(count: float) -> str:
    return f"{count / 1e6:,.1f} MB"


def _aligned(values: dict[str, str]) -> list[str]:
    """Indented lines "name  value" with the values under each other."""
    width = max(map(len, values))
    return [f"  {name:<{width}}  {value}" for name, value in values.items()]


def _table(rows: list[tuple[str, ...]], left: Collection[int]) -> list[str]:
    """Lines with columns of equal width; the `left` ones are aligned left, the others right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    cells = [
        [
            c.ljust(w) if i in left else c.rjust(w)
            for i, (c, w) in enumerate(zip(row, widths, strict=True))
        ]
        for row in rows
    ]
    return ["  ".join(row).rstrip() for row in cells]
