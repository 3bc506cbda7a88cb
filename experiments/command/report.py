"""`report`: the table, figures and page of a study again."""

import os
import pathlib
from collections.abc import Sequence

from experiments.command.contract import Command
from experiments.command.flags import Given
from moe import files
from moe.registry import Mistake


def act(words: Sequence[str], given: Given) -> None:
    """Writes the report of the folder that the only word names."""
    publish(study_directory(words[0]))


def publish(directory: pathlib.Path) -> None:
    """Writes the report of a study, prints its table and says where the page is."""
    from experiments.report import report

    page = report.report(directory)
    print(report.table(directory))
    print(f"page: {page}")


def undecided(directory: pathlib.Path) -> list[str]:
    """The expectations of a study that more seeds could decide, as "arm - against"."""
    from experiments.report.compare import compare
    from experiments.results import runs

    outcomes = compare(runs.read(directory)).outcomes
    return [f"{one.arm} - {one.against}" for one in outcomes if one.open]


def study_directory(text: str) -> pathlib.Path:
    """The folder of a study that ran; raises Mistake unless it holds study.json."""
    directory = files.place(text, f"report {text}")
    if not directory.is_dir():
        state = "is no folder" if os.path.lexists(directory) else "does not exist"
        state = "is a file" if directory.is_file() else state
        raise Mistake(f"report {text}: {state}; it takes the --workdir of a run")
    if not os.path.lexists(directory / "study.json"):
        raise Mistake(f"report {text}: has no study.json; it takes the --workdir of a run")
    return directory


COMMAND = Command(words="DIR", act=act, examples=("runs/quickstart", "runs/first"))
