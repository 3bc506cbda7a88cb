"""The page of a study: one HTML file with its figures, style and script inside."""

import shlex
from collections.abc import Mapping
from html import escape
from pathlib import Path

from experiments.figures import palette
from experiments.figures.draw import Drawing
from experiments.report import lengths, tuned
from experiments.report import table as tables
from experiments.report.findings import BASELINES
from experiments.report.page.certainty import certainty
from experiments.report.page.expected import expected
from experiments.report.page.markup import bullets, prose, scroll, swatch, table
from experiments.report.page.routing import routing
from experiments.report.told import Told
from experiments.results.record import MISSING, Arm, Comparison
from experiments.results.routing import Routing
from experiments.text import listing, number
from moe.analysis import load

ASSETS = Path(__file__).parent
METHODS = (
    "Losses are cross-entropy in nats per token on held-out documents of every desk, router noise "
    "off, auxiliary terms excluded; bits per byte is the same loss per byte of text. FLOPs are "
    "those of the forward pass with attention, router and head counted, dispatch apart. The "
    "unigram entropy and the 5-gram model are measured on the same held-out tokens."
)


def page(
    comparison: Comparison, said: Told, drawings: list[Drawing], traced: Routing | None = None
) -> str:
    """The whole page as text; everything that comes from the records is escaped."""
    sections = (
        ("results", "Results", _results(comparison) + _desks(comparison)),
        ("expected", "Expected and observed", expected(comparison, said.answers)),
        ("findings", "What the data say", bullets(said.findings)),
        ("figures", "Figures", "".join(_figure(d, i + 1) for i, d in enumerate(drawings))),
        ("routing", "What each expert was given", routing(traced)),
        ("sure", "How sure is it", certainty(comparison)),
        ("lengths", "By length of training", _lengths(comparison)),
        ("tuning", "Tuning", _tuning(comparison, said.choices)),
        ("arms", "The arms", _arms(comparison)),
        ("caveats", "Caveats", bullets(said.caveats)),
        ("methods", "Methods", _methods(comparison)),
        ("repeat", "Repeat it", _repeat(comparison)),
    )
    sections = [section for section in sections if section[2]]
    contents = " ".join(f'<a href="#{key}">{title}</a>' for key, title, _ in sections)
    body = "".join(
        f'<section id="{key}"><h2>{title}</h2>{content}</section>'
        for key, title, content in sections
    )
    title = escape(f"{comparison.declared.study}, size {comparison.declared.size}")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{title}</title>\n<style>\n{palette.theme()}{_asset('page.css')}</style>\n</head>\n<body>\n"
        f'<main>{_header(comparison, said)}<nav aria-label="Contents">{contents}</nav>'
        f"{body}</main>\n<script>\n{_asset('page.js')}</script>\n</body>\n</html>\n"
    )


def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")


def _header(comparison: Comparison, said: Told) -> str:
    declared = comparison.declared
    answer = "".join(f"<p>{prose(sentence)}</p>" for sentence in said.headline)
    notice = ""
    if said.missing:
        notice = f'<aside class="notice"><h2>Not in the table</h2>{bullets(said.missing)}</aside>'
    study, size = escape(str(declared.study)), escape(str(declared.size))
    return (
        f'<header><p class="kind">Study {study}, size {size}</p>'
        f'<h1>{prose(declared.question)}</h1><div class="answer">{answer}</div>{notice}</header>'
    )


def _lengths(comparison: Comparison) -> str:
    rows, heads = lengths.rows(comparison), lengths.heads(comparison)
    title = f"Difference to {comparison.baseline}, and places on the scales"
    return table(title, heads, rows) if rows else ""


def _tuning(comparison: Comparison, sentences: list[str]) -> str:
    heads, rows = tuned.table(comparison)
    body = table("Held-out loss of each value, mean over the tuning seeds", heads, rows, ("Field",))
    return bullets(sentences) + body if rows else ""


def _results(comparison: Comparison) -> str:
    """The sortable table; the count-based baselines stay below it."""
    shown = tables.columns(comparison)
    heads = "".join(
        f'<th scope="col"{_kind(column.key)} title="{escape(column.note)}">'
        f'<button type="button">{escape(column.title)}</button></th>'
        for column in shown
    )
    body = "".join(_row(comparison, row) for row in tables.rows(comparison))
    references = "".join(_row(comparison, row) for row in tables.reference_rows(comparison))
    notes = "".join(f"<dt>{escape(c.title)}</dt><dd>{escape(c.note)}</dd>" for c in shown[1:])
    caption = "One run per arm." if comparison.one_seed else "Mean over seeds per arm."
    grid = scroll(
        "Results per arm",
        f'<table class="sortable"><caption>{caption} Select a heading to sort.'
        f"</caption><thead><tr>{heads}</tr></thead><tbody>{body}</tbody>"
        f'<tbody class="reference">{references}</tbody></table>',
    )
    return f"{grid}<details><summary>What the columns are</summary><dl>{notes}</dl></details>"


def _kind(key: str) -> str:
    return ' class="word"' if key in tables.LEFT else ""


def _row(comparison: Comparison, row: tables.Row) -> str:
    cells = []
    for key, cell in row.items():
        value = "" if cell.value is None else f' data-value="{cell.value!r}"'
        text = prose(cell.text)
        if key == "arm":
            cells.append(f'<th scope="row">{swatch(comparison, cell.text)}{text}</th>')
        elif key == "verdict":
            kind = escape(cell.text.split(" ")[0])
            cells.append(f'<td class="word verdict {kind}">{text}</td>')
        else:
            cells.append(f"<td{value}>{text}</td>")
    return f"<tr>{''.join(cells)}</tr>"


def _desks(comparison: Comparison) -> str:
    """Mean loss of every arm and of the count-based baselines on each desk, folded."""
    arms = comparison.arms.values()
    desks = list(dict.fromkeys(desk for arm in arms for desk in arm.desk_loss))
    if not desks:
        return ""
    lines = []
    for arm in arms:
        means = [arm.desk_loss[desk].mean if desk in arm.desk_loss else None for desk in desks]
        lines.append([arm.name, *map(number, means)])
    by_desk = comparison.baselines.get("by_desk", {})
    for key, name in BASELINES:
        levels = [by_desk.get(desk, {}).get(f"{key}_nats") for desk in desks]
        if any(level is not None for level in levels):
            lines.append([name, *map(number, levels)])
    body = table("Mean validation loss, nats per token", ["Arm", *desks], lines)
    return f"<details><summary>Loss by desk in numbers</summary>{body}</details>"


def _figure(drawing: Drawing, index: int) -> str:
    """A figure; its width in inches says how far the style may stretch it."""
    return (
        f'<figure id="{drawing.name}" style="--inches:{drawing.inches:g}">'
        f"{scroll(drawing.title, drawing.svg)}"
        f"<figcaption><strong>Figure {index}. {escape(drawing.title)}.</strong> "
        f"{prose(drawing.caption)}</figcaption></figure>"
    )


def _arms(comparison: Comparison) -> str:
    parts = []
    for arm in comparison.arms.values():
        body = f"<p>{prose(_facts(arm))}</p>"
        body += _parts(f"Parameters of {arm.name} by part", arm.params_by_part)
        body += _parts(f"FLOPs per token of {arm.name} by part", arm.flops_by_part)
        name = f"{swatch(comparison, arm.name)}<b>{escape(arm.name)}</b>"
        summary = f"{name}: {prose(arm.description)}"
        parts.append(f"<details><summary>{summary}</summary>{body}</details>")
    return "".join(parts)


def _facts(arm: Arm) -> str:
    if not arm.seeds_finished:
        return "No finished run."
    facts = [f"{arm.tokens:,} training tokens in {arm.steps:,} steps"]
    if arm.router:
        layers = listing([str(layer) for layer in arm.router.layers])
        facts.append(f"{arm.router.num_experts} experts in layers {layers}, counted from 0")
    if arm.flops_ratio:
        facts.append(f"{number(arm.flops_ratio, 4)} × the FLOPs of the baseline")
    return "; ".join(facts) + "."


def _parts(title: str, parts: Mapping[str, float]) -> str:
    """Size and share of each part; dispatch is shown but not counted in the sum."""
    if not parts:
        return ""
    total = sum(value for name, value in parts.items() if name != "dispatch")
    lines = []
    for name, value in sorted(parts.items(), key=lambda item: -item[1]):
        share = "not counted" if name == "dispatch" else f"{100 * value / (total or 1):.1f} %"
        lines.append([name.replace("_", " "), number(value, 0), share])
    return table(title, ["Part", "Number", "Share"], lines)


def _methods(comparison: Comparison) -> str:
    declared = comparison.declared
    seeds = listing([str(seed) for seed in declared.seeds])
    text = f"<p>Seeds {escape(seeds)}. {prose(METHODS)}</p>"
    if any(arm.router for arm in comparison.arms.values()):
        text += f"<p>{prose(' '.join(f'{m.title}: {m.note}.' for m in load.METRICS))}</p>"
    if declared.overrides:
        text += f"<p>Settings changed: {escape(', '.join(map(str, declared.overrides)))}.</p>"
    lines = [
        [
            key.replace("_", " "),
            listing([str(v) for v in value] if isinstance(value, list) else [str(value)]),
        ]
        for key, value in sorted(comparison.environment.items())
    ]
    return text + table("Versions, device and data", ["Item", "Value"], lines, words=("Value",))


def _repeat(comparison: Comparison) -> str:
    declared = comparison.declared
    options = {
        "workdir": "repeat",
        "size": declared.size,
        "arms": ",".join(arm.name for arm in comparison.arms.values() if arm.status != MISSING),
        "seeds": ",".join(str(seed) for seed in declared.seeds),
    }
    command = [f"python -m experiments run {shlex.quote(str(declared.study))}"]
    command += [shlex.quote(f"--{name}={value}") for name, value in options.items()]
    command += [shlex.quote(f"--set={override}") for override in declared.overrides]
    commit = comparison.environment.get("commit")
    first = [f"git checkout {shlex.quote(commit)}"] if commit and isinstance(commit, str) else []
    lines = escape("\n".join([*first, " \\\n    ".join(command)]))
    return (
        f'<pre tabindex="0"><code>{lines}</code></pre><p>The same command with the same seeds '
        "gives the same <code>results.json</code>, apart from times.</p>"
    )
