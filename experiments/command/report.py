"""`report`: the table, figures and page of a study again."""

import pathlib

from moe.registry import Mistake


def study_directory(text: str) -> pathlib.Path:
    """The folder of a study that ran; raises Mistake unless it holds study.json."""
    directory = pathlib.Path(text)
    if not directory.is_dir():
        state = "is a file" if directory.exists() else "does not exist"
        raise Mistake(f"report {text}: {state}; it takes the --workdir of a run")
    if not (directory / "study.json").is_file():
        raise Mistake(f"report {text}: has no study.json; it takes the --workdir of a run")
    return directory
