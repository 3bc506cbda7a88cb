"""`show`: every field, epochs, parameters, FLOPs per token and memory."""

import contextlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags as absl_flags

from experiments.command.contract import Command
from experiments.command.flags import Given
from experiments.select import parse_name, resolve
from experiments.text import aligned, columns, megabytes, written
from moe import fields, registry
from moe.registry import Mistake

absl_flags.DEFINE_string("compile-for", None, "a TPU slice that need not be there: v5e:4x4")


def act(words: Sequence[str], given: Given) -> None:
    """Prints an arm in full, a study as a table, or its steps compiled for a slice."""
    study, arms = parse_name(words[0])
    if given.compile_for is not None:
        from experiments.command import compile_for

        experiments = resolve(study, arms, given.size, given.set)
        title = f"{study} --size={given.size}"
        print(compile_for.sheet(title, experiments, given.mesh or "auto", given.compile_for))
        return
    with _planned(given, resolve(study, arms or ("all",), given.size, given.set)):
        if arms is None:
            print(study_table(study, given.size, given.set))
        else:
            print(arm_sheet(study, arms[0], given.size, given.set))


def _planned(given: Given, experiments: Mapping[str, Any]) -> contextlib.AbstractContextManager:
    """The mesh that --mesh names, in use without devices; nothing without one."""
    if given.mesh is None:
        return contextlib.nullcontext()
    if given.mesh == "auto":
        raise Mistake("--mesh=auto: show knows no devices; name axes, as in data:2,expert:4")
    from moe.devices import mesh

    return mesh.planned(mesh.choose(given.mesh, experiments, None))


def arm_sheet(study_name: str, arm: str, size: str, overrides: Sequence[str]) -> str:
    """One experiment in full: fields, parameters, FLOPs per token by part, memory."""
    experiment = resolve(study_name, (arm,), size, overrides)[arm]
    from moe.cost import account, memory

    found = account.account(experiment)
    study = registry.lookup("study", study_name)
    leaves = {path: written(value) for path, value in fields.fields(experiment).items()}
    lines = [f"{study_name}/{arm} --size={size}: {dict(study.arms)[arm]}", "", "fields"]
    lines += aligned(leaves)
    lines += ["", _epochs(experiment)]
    total, active = found.params_total, found.params_active
    lines += ["", f"parameters: {total:,} in all, {active:,} active for a token"]
    lines += aligned({part: f"{n:>14,}" for part, n in found.params_by_part.items()})
    lines += ["", f"FLOPs per token, forward: {found.flops_per_token:,.0f} (dispatch apart)"]
    share = {
        p: f"{n:>14,.0f} {n / found.flops_per_token:>6.1%}" for p, n in found.flops_by_part.items()
    }
    lines += aligned(share)
    held = memory.in_training(experiment)
    lines += ["", f"memory in training{_where()}: {megabytes(sum(held.values()))}"]
    lines += aligned({part: f"{megabytes(n):>14}" for part, n in held.items()})
    return "\n".join([*lines, *_dispatch_lines(experiment)])


def _epochs(experiment) -> str:
    """How often the run reads its text, as far as that is known without reading it."""
    from moe.data.prepare import one_pass

    known = one_pass(experiment.data, experiment.model.vocab_size)
    if known is None:
        return (
            f"training: {experiment.tokens:,} tokens; epochs are known when "
            f"data.source={experiment.data.source} was prepared"
        )
    return f"training: {experiment.epochs(known)}"


def _where() -> str:
    """Of which device, where a mesh is in use."""
    from moe.devices import sharding

    axes = sharding.sizes()
    return f", on each of {math.prod(axes.values())} devices" if axes else ""


def _dispatch_lines(experiment) -> list[str]:
    """What dispatch "auto" takes here, and why; nothing for other dispatchers."""
    from moe.dispatch.auto import Auto, explain

    moe = experiment.model.moe
    if moe is None or not isinstance(moe.dispatch, Auto):
        return []
    from moe.devices import sharding

    K = moe.router.choices(moe.routed_experts, experiment.tokens_per_call)
    return ["", f"dispatch: auto takes {explain(moe.dispatch.choose(K, sharding.platform()))}"]


def study_table(study_name: str, size: str, overrides: Sequence[str]) -> str:
    """All arms of a study side by side."""
    experiments = resolve(study_name, ("all",), size, overrides)
    from moe.cost import account, memory

    study = registry.lookup("study", study_name)
    accounts = {arm: account.account(experiment) for arm, experiment in experiments.items()}
    base = accounts[study.baseline].flops_per_token
    rows = [
        ("arm", "parameters", "active", "FLOPs/token", f"/ {study.baseline}", f"memory{_where()}")
    ]
    for arm, found in accounts.items():
        rows.append(
            (
                arm,
                f"{found.params_total:,}",
                f"{found.params_active:,}",
                f"{found.flops_per_token:,.0f}",
                f"{found.flops_per_token / base:.3f}",
                megabytes(sum(memory.in_training(experiments[arm]).values())),
            )
        )
    seeds = ", ".join(map(str, study.seeds))
    head = [f"{study_name} --size={size}: {study.question}", f"seeds {seeds}"]
    head += [*dict.fromkeys(map(_epochs, experiments.values())), ""]
    return "\n".join([*head, *columns(rows, left=(0,))])


COMMAND = Command(
    words="STUDY[/ARM]",
    act=act,
    flags=("size", "set", "mesh", "compile-for"),
    examples=(
        "dense_topk_hash/top2 --set=model.moe.router.k=4",
        "dense_topk_hash --size=small",
        "dense_topk_hash/top2 --size=base --mesh=fsdp:4,expert:4",
    ),
)
