"""The page of a study: one HTML file with its figures, style and script inside."""

import shlex
from html import escape
from pathlib import Path

from experiments.figures.draw import Drawing
from experiments.report import table as tables
from experiments.report.page.certainty import certainty
from experiments.report.page.markup import bullets, prose, scroll, swatch, table
from experiments.text import listing, number

ASSETS = Path(__file__).parent
METHODS = (
    "Losses are cross-entropy in nats per token on held-out documents of every desk, router noise "
    "off, auxiliary terms excluded; bits per byte is the same loss per byte of text. FLOPs are "
    "those of the forward pass with attention, router and head counted, dispatch apart. Load "
    "entropy is −Σ f ln f / ln E of the fractions f of assignments per expert; max violation is "
    "E max f − 1; a dead expert takes less than 1 % of the even share 1/E. The unigram entropy and "
    "the 5-gram model are measured on the same held-out tokens."
)


def page(record: dict, drawings: list[Drawing]) -> str:
    """The whole page as text; everything that comes from the record is escaped."""
    sections = (
        ("results", "Results", _results(record) + _desks(record)),
        ("findings", "What the data say", bullets(record["findings"])),
        ("figures", "Figures", "".join(_figure(d, i + 1) for i, d in enumerate(drawings))),
        ("sure", "How sure is it", certainty(record)),
        ("arms", "The arms", _arms(record)),
        ("caveats", "Caveats", bullets(record["caveats"])),
        ("methods", "Methods", _methods(record)),
        ("repeat", "Repeat it", _repeat(record)),
    )
    contents = " ".join(f'<a href="#{key}">{title}</a>' for key, title, _ in sections)
    body = "".join(
        f'<section id="{key}"><h2>{title}</h2>{content}</section>'
        for key, title, content in sections
    )
    title = escape(f"{record['study']}, size {record['size']}")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{title}</title>\n<style>\n{_asset('page.css')}</style>\n</head>\n<body>\n"
        f'<main>{_header(record)}<nav aria-label="Contents">{contents}</nav>{body}</main>\n'
        f"<script>\n{_asset('page.js')}</script>\n</body>\n</html>\n"
    )


def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")


def _header(record: dict) -> str:
    answer = "".join(f"<p>{prose(sentence)}</p>" for sentence in record["headline"])
    missing = record["open_runs"] + record["problems"]
    notice = ""
    if missing:
        notice = f'<aside class="notice"><h2>Not in the table</h2>{bullets(missing)}</aside>'
    study, size = escape(str(record["study"])), escape(str(record["size"]))
    return (
        f'<header><p class="kind">Study {study}, size {size}</p>'
        f'<h1>{prose(record["question"])}</h1><div class="answer">{answer}</div>{notice}</header>'
    )


def _results(record: dict) -> str:
    """The sortable table; the count-based baselines stay below it."""
    heads = "".join(
        f'<th scope="col"{_kind(column.key)} title="{escape(column.note)}">'
        f'<button type="button">{escape(column.title)}</button></th>'
        for column in tables.COLUMNS
    )
    body = "".join(_row(record, row) for row in tables.rows(record))
    references = "".join(_row(record, row) for row in tables.reference_rows(record))
    notes = "".join(
        f"<dt>{escape(c.title)}</dt><dd>{escape(c.note)}</dd>" for c in tables.COLUMNS[1:]
    )
    grid = scroll(
        "Results per arm",
        '<table class="sortable"><caption>Mean over seeds per arm. Select a heading to sort.'
        f"</caption><thead><tr>{heads}</tr></thead><tbody>{body}</tbody>"
        f'<tbody class="reference">{references}</tbody></table>',
    )
    return f"{grid}<details><summary>What the columns are</summary><dl>{notes}</dl></details>"


def _kind(key: str) -> str:
    return ' class="word"' if key in tables.LEFT else ""


def _row(record: dict, row: dict[str, tables.Cell]) -> str:
    cells = []
    for column in tables.COLUMNS:
        cell = row[column.key]
        value = "" if cell.value is None else f' data-value="{cell.value!r}"'
        text = prose(cell.text)
        if column.key == "arm":
            cells.append(f'<th scope="row">{swatch(record, cell.text)}{text}</th>')
        elif column.key == "verdict":
            kind = escape(cell.text.split(" ")[0])
            cells.append(f'<td class="word verdict {kind}">{text}</td>')
        else:
            cells.append(f"<td{value}>{text}</td>")
    return f"<tr>{''.join(cells)}</tr>"


def _desks(record: dict) -> str:
    """Mean loss of every arm and of the count-based baselines on each desk, folded."""
    arms = record["arms"]
    desks = list(dict.fromkeys(desk for entry in arms.values() for desk in entry["desk_loss"]))
    if not desks:
        return ""
    lines = []
    for arm in record["arm_order"]:
        losses = arms[arm]["desk_loss"]
        lines.append([arm, *(number(losses.get(desk, {}).get("mean")) for desk in desks)])
    by_desk = record["baselines"].get("by_desk", {})
    for key, name in (("unigram_nats", "unigram entropy"), ("fivegram_nats", "5-gram model")):
        levels = [by_desk.get(desk, {}).get(key) for desk in desks]
        if any(level is not None for level in levels):
            lines.append([name, *map(number, levels)])
    body = table("Mean validation loss, nats per token", ["Arm", *desks], lines)
    return f"<details><summary>Loss by desk in numbers</summary>{body}</details>"


def _figure(drawing: Drawing, index: int) -> str:
    return (
        f'<figure id="{drawing.name}">{scroll(drawing.title, drawing.svg)}'
        f"<figcaption><strong>Figure {index}. {escape(drawing.title)}.</strong> "
        f"{prose(drawing.caption)}</figcaption></figure>"
    )


def _arms(record: dict) -> str:
    parts = []
    for arm in record["arm_order"]:
        entry = record["arms"][arm]
        body = f"<p>{prose(_facts(entry))}</p>"
        for key, title in (("params_by_part", "Parameters"), ("flops_by_part", "FLOPs per token")):
            body += _parts(f"{title} of {arm} by part", entry[key])
        summary = f"{swatch(record, arm)}<b>{escape(arm)}</b>: {prose(entry['description'])}"
        parts.append(f"<details><summary>{summary}</summary>{body}</details>")
    return "".join(parts)


def _facts(entry: dict) -> str:
    if not entry["seeds_finished"]:
        return "No finished run."
    facts = [f"{entry['tokens']:,} training tokens in {entry['steps']:,} steps"]
    if entry["router"]:
        layers = listing([str(layer) for layer in entry["router"]["layers"]])
        facts.append(f"{entry['router']['num_experts']} experts in layers {layers}, counted from 0")
    if entry["flops_ratio"]:
        facts.append(f"{number(entry['flops_ratio'], 4)} × the FLOPs of the baseline")
    return "; ".join(facts) + "."


def _parts(title: str, parts: dict[str, float]) -> str:
    """Size and share of each part; dispatch is shown but not counted in the sum."""
    if not parts:
        return ""
    total = sum(value for name, value in parts.items() if name != "dispatch")
    lines = []
    for name, value in sorted(parts.items(), key=lambda item: -item[1]):
        share = "not counted" if name == "dispatch" else f"{100 * value / (total or 1):.1f} %"
        lines.append([name.replace("_", " "), number(value, 0), share])
    return table(title, ["Part", "Number", "Share"], lines)


def _methods(record: dict) -> str:
    seeds = listing([str(seed) for seed in record["seeds"]])
    text = f"<p>Seeds {escape(seeds)}. {prose(METHODS)}</p>"
    if record["overrides"]:
        text += f"<p>Settings changed: {escape(', '.join(map(str, record['overrides'])))}.</p>"
    lines = [
        [
            key.replace("_", " "),
            listing([str(v) for v in value] if isinstance(value, list) else [str(value)]),
        ]
        for key, value in sorted(record["environment"].items())
    ]
    return text + table("Versions, device and data", ["Item", "Value"], lines, words=("Value",))


def _repeat(record: dict) -> str:
    arms = ",".join(arm for arm in record["arm_order"] if record["arms"][arm]["seeds_finished"])
    options = {
        "workdir": "repeat",
        "size": record["size"],
        "arms": arms,
        "seeds": ",".join(str(seed) for seed in record["seeds"]),
    }
    command = [f"python -m experiments run {shlex.quote(str(record['study']))}"]
    command += [shlex.quote(f"--{name}={value}") for name, value in options.items()]
    command += [shlex.quote(f"--set={override}") for override in record["overrides"]]
    commit = record["environment"].get("commit")
    first = [f"git checkout {shlex.quote(commit)}"] if commit and isinstance(commit, str) else []
    lines = escape("\n".join([*first, " \\\n    ".join(command)]))
    return (
        f'<pre tabindex="0"><code>{lines}</code></pre><p>The same command with the same seeds '
        "gives the same <code>results.json</code>, apart from times.</p>"
    )
