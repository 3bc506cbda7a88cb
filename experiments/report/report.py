"""The report of a study directory: results.json, results.md, figures and report.html."""

import json
import textwrap
from pathlib import Path

from experiments.figures import draw
from experiments.report import findings
from experiments.report import table as tables
from experiments.report.caveats import caveats
from experiments.report.compare import aggregate
from experiments.report.page import page
from experiments.results.runs import read

RESULTS, SUMMARY, PAGE, FIGURES = "results.json", "results.md", "report.html", "figures"


def report(directory: str | Path) -> Path:
    """Writes the report into the study directory and returns the path of its page.

    Arms without a finished run are named, not skipped in silence. Raises Mistake, one line, when
    study.json cannot be used or no run has finished. The same files give the same report.
    """
    directory = Path(directory)
    record = _record(directory)
    (directory / RESULTS).write_text(_json(record), encoding="utf-8")
    (directory / SUMMARY).write_text(_markdown(record), encoding="utf-8")
    drawings = draw.draw(record, directory / FIGURES)
    path = directory / PAGE
    path.write_text(page.page(record, drawings), encoding="utf-8")
    return path


def table(directory: str | Path) -> str:
    """The table for a terminal, with the headline and what is not in it; raises as `report`."""
    record = _record(Path(directory))
    notes = [f"Not in the table: {line}" for line in record["open_runs"] + record["problems"]]
    wrapped = [textwrap.fill(line, 96) for line in [*record["headline"], *notes]]
    return tables.terminal(record) + "\n\n" + "\n".join(wrapped)


def _record(directory: Path) -> dict:
    record = aggregate(read(directory))
    return record | {
        "headline": findings.headline(record),
        "findings": findings.findings(record),
        "caveats": caveats(record),
        "open_runs": findings.open_runs(record),
    }


def _json(record: dict) -> str:
    text = json.dumps(record, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False)
    return text + "\n"


def _markdown(record: dict) -> str:
    """The table, what the data say, and the limits, as one Markdown page."""
    lines = [f"# {record['study']}, size {record['size']}", "", record["question"], ""]
    lines += [*record["headline"], "", tables.markdown(record), ""]
    notes = [f"{column.title}: {column.note}." for column in tables.COLUMNS[1:]]
    lines += [" ".join(notes), ""]
    sections = (
        ("What the data say", record["findings"]),
        ("Caveats", record["caveats"]),
        ("Not in the table", record["open_runs"] + record["problems"]),
    )
    for title, entries in sections:
        if entries:
            lines += [f"## {title}", "", *(f"- {entry}" for entry in entries), ""]
    return "\n".join(lines)
