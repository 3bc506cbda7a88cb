"""The report of a study directory: results.json, results.md, figures and report.html."""

import json
import textwrap
from pathlib import Path

from experiments.figures import draw
from experiments.report import expected, lengths, tuned
from experiments.report import table as tables
from experiments.report.compare import compare
from experiments.report.page.page import page
from experiments.report.told import Told, tell
from experiments.results import routing
from experiments.results.record import Comparison
from experiments.results.runs import read
from experiments.text import printable
from moe import files

RESULTS, SUMMARY, PAGE, FIGURES = "results.json", "results.md", "report.html", "figures"


def report(directory: str | Path) -> Path:
    """Writes the report into the study directory and returns the path of its page.

    Arms without a finished run are named, not skipped in silence. Raises Mistake, one line, when
    study.json cannot be used or no run has finished. The same files give the same report.
    """
    directory = Path(directory)
    comparison = compare(read(directory))
    said = tell(comparison)
    files.write(directory / RESULTS, _json(comparison, said))
    files.write(directory / SUMMARY, _markdown(comparison, said))
    drawings = draw.draw(comparison, directory / FIGURES)
    path = directory / PAGE
    files.write(path, page(comparison, said, drawings, routing.read(directory)))
    return path


def table(directory: str | Path) -> str:
    """The tables for a terminal, the headline and what is not in them; raises as `report`."""
    comparison = compare(read(Path(directory)))
    said = tell(comparison)
    notes = [f"Not in the table: {line}" for line in said.missing]
    wrapped = [textwrap.fill(line, 96) for line in [*said.headline, *notes]]
    blocks = [tables.terminal(comparison), expected.terminal(comparison), "\n".join(wrapped)]
    return printable("\n\n".join(filter(None, blocks)))


def _json(comparison: Comparison, said: Told) -> str:
    content = comparison.content() | said._asdict()
    content["by_length"] = lengths.content(comparison)
    text = json.dumps(content, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False)
    return text + "\n"


def _markdown(comparison: Comparison, said: Told) -> str:
    """The table, what the data say, and the limits, as one Markdown page."""
    declared = comparison.declared
    lines = [f"# {declared.study}, size {declared.size}", "", declared.question, ""]
    lines += [*said.headline, "", tables.markdown(comparison), ""]
    notes = [f"{column.title}: {column.note}." for column in tables.columns(comparison)[1:]]
    lines += [" ".join(notes), ""]
    answers = [*said.answers, expected.rule(comparison)] if said.answers else []
    sections = (
        ("Expected and observed", answers),
        ("What the data say", said.findings),
        ("By length of training", lengths.lines(comparison)),
        ("Tuning", [*said.choices, *tuned.lines(comparison)]),
        ("Caveats", said.caveats),
        ("Not in the table", said.missing),
    )
    for title, entries in sections:
        if entries:
            lines += [f"## {title}", "", *(f"- {entry}" for entry in entries), ""]
    return "\n".join(lines)
