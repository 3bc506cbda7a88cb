"""`show`: every field, epochs, parameters, FLOPs per token and memory."""

from collections.abc import Sequence

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
    elif given.mesh is not None:
        raise Mistake(f"--mesh={given.mesh}: show takes it beside --compile-for")
    elif arms is None:
        print(study_table(study, given.size, given.set))
    else:
        print(arm_sheet(study, arms[0], given.size, given.set))


def arm_sheet(study_name: str, arm: str, size: str, overrides: Sequence[str]) -> str:
    """One experiment in full: fields, parameters, FLOPs per token by part, memory."""
    experiment = resolve(study_name, (arm,), size, overrides)[arm]
    from moe.cost import account

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
    memory = found.memory_bytes
    lines += ["", f"memory in training: {megabytes(sum(memory.values()))}"]
    lines += aligned({part: f"{megabytes(n):>14}" for part, n in memory.items()})
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
                megabytes(sum(found.memory_bytes.values())),
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
    ),
)
