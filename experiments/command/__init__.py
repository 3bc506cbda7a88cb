"""The command: one command a file. To add one: its file, and a line here."""

from moe.registry import register


def _command(name: str, module: str, summary: str) -> None:
    register("command", name, f"experiments.command.{module}:COMMAND", summary)


_command("list", "listing", "studies, arms and parts; `list routers` says more of each router")
_command("show", "show", "every field, parameters, FLOPs per token and memory")
_command("run", "run", "train (or resume) the arms, print the table, write the page")
_command("report", "report", "write the table, figures and page of a study again")
_command("diff", "diff", "the fields that differ; each a STUDY/ARM or a run's folder")
_command("analyze", "analyze", "trace the routing of trained runs over a text, token by token")
_command("bench", "bench", "time one of several things, which `bench --help` lists")
_command("data", "data", "download and prepare a data set of TFDS, for data.source=tfds:NAME")
