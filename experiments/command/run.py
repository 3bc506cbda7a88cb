"""`run`: trains, or resumes, the arms of a study, then writes their report."""

import sys
from collections.abc import Sequence

from absl import flags as absl_flags

from experiments.command import report
from experiments.command.contract import Command
from experiments.command.flags import Given
from experiments.runner.request import MEMORY, SEEDS, Request, whole
from experiments.select import parse_name
from moe import registry
from moe.devices import processes
from moe.environment import wrong_libtpu
from moe.registry import Mistake

absl_flags.DEFINE_list("seeds", None, "these seeds instead of the study's own")
absl_flags.DEFINE_integer(
    "until-decided", None, "adds seeds, up to so many, until each expectation is decided"
)
absl_flags.DEFINE_string(
    "checkpoints", None, "a folder or gs://BUCKET/PATH for them; default: the workdir"
)
absl_flags.DEFINE_integer(
    "jobs", 0, "runs at the same time, each a process; 0 decides by itself", lower_bound=0
)
absl_flags.DEFINE_string("profile", None, "first and last step of a profile, as 10:12")
absl_flags.DEFINE_string("wandb", None, "the Weights & Biases project that gets the metrics")
absl_flags.DEFINE_enum(
    "memory", "check", MEMORY, "what cannot fit by formula: check refuses it, ignore tries"
)
absl_flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0 of several, or auto")
absl_flags.DEFINE_integer("num_processes", None, "how many train together")
absl_flags.DEFINE_integer("process_id", None, "which of them this one is, from 0")


def act(words: Sequence[str], given: Given) -> None:
    """Joins the other processes, if there are any, trains, and writes the report."""
    asked = request(words[0], given)
    wrong = wrong_libtpu()
    if wrong:
        print(f"warning: {wrong}", file=sys.stderr)
    if given.coordinator is not None:
        processes.join(given.coordinator, given.num_processes, given.process_id)
    from experiments.runner import run

    run.run(asked)
    while further := _further(asked):
        asked = further
        run.run(asked)
    if processes.is_first():
        report.publish(asked.workdir)


def _further(asked: Request) -> Request | None:
    """What is asked for next where the looks so far have not decided all; None where they have.

    Several processes do what the first finds, which has the files.
    """
    further = asked.further()
    if further is None:
        return None
    left = [] if not processes.is_first() else report.undecided(asked.workdir)
    if not processes.agreed([bool(left)])[0]:
        return None
    if processes.is_first():
        seeds = f"{len(asked.seeds)} seeds leave {len(left)} undecided ({', '.join(left)})"
        print(f"{seeds}; goes on to {len(further.seeds)}", file=sys.stderr)
    return further


def request(name: str, given: Given) -> Request:
    """What the words ask for, checked; raises Mistake, one line, before anything is done."""
    study, arms = parse_name(name)
    if arms is not None and given.arms is not None:
        raise Mistake(f"--arms={','.join(given.arms)}: {name} names an arm already")
    wanted, looks = None if given.seeds is None else seeds(given.seeds), ()
    if given.until_decided is not None:
        asked = registry.lookup("study", study)
        first = len(asked.seeds if wanted is None else wanted)
        looks = asked.decision.until(first, given.until_decided).looks
    return Request(
        study,
        given.workdir,
        arms=arms or given.arms,
        size=given.size,
        seeds=wanted,
        overrides=given.set,
        jobs=given.jobs,
        mesh=_mesh(given),
        processes=1 if given.coordinator is None else given.num_processes,
        profile=given.profile,
        wandb=given.wandb,
        checkpoints=given.checkpoints,
        memory=given.memory,
        looks=looks,
    )


def seeds(texts: Sequence[str]) -> tuple[int, ...]:
    """The numbers that the words are; raises Mistake for other words."""
    numbers = [whole(text) for text in texts]
    if None in numbers:
        raise Mistake(f"--seeds={','.join(texts)}: {SEEDS}")
    return tuple(numbers)


def _mesh(given: Given) -> str | None:
    """The text of the mesh: that of the flag, "auto" for several processes, or None."""
    if given.coordinator is None:
        for flag in ("num_processes", "process_id"):
            if getattr(given, flag) is not None:
                raise Mistake(f"--{flag}={getattr(given, flag)}: needs --coordinator=HOST:PORT")
        if given.mesh is None:
            return None
    if "jobs" in given.present:
        raise Mistake(f"--jobs={given.jobs}: on a mesh the arms run one after the other")
    return given.mesh or "auto"


COMMAND = Command(
    words="STUDY[/ARM]",
    act=act,
    flags=(
        *(
            "size",
            "arms",
            "seeds",
            "until-decided",
            "set",
            "workdir",
            "checkpoints",
            "jobs",
            "profile",
            "wandb",
        ),
        *("memory", "mesh", "coordinator", "num_processes", "process_id"),
    ),
    examples=(
        "dense_topk_hash --workdir=runs/first --seeds=0,1",
        "dense_topk_hash --workdir=runs/sure --until-decided=12",
        "dense_topk_hash/top2 --workdir=runs/k4 --set=model.moe.router.k=4",
    ),
)
