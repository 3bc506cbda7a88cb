"""Pieces of HTML that the sections of the page share; all text is escaped here."""

import re
from html import escape

from experiments.figures.palette import style
from experiments.results.record import Comparison
from experiments.text import NONE


class Drawing(str):
    """A cell of a table that is HTML already."""


def prose(text: str) -> str:
    """Escaped text whose numbers stay on one line with their unit."""
    text = re.sub(
        r"(?<=\d) (?=[%×])|(?<=\bp) (?=[=<])|(?<=[=<]) (?=\d)|(?<=×) (?=the)", "\u00a0", text
    )
    return escape(text)


def bullets(lines: list[str]) -> str:
    """An unordered list."""
    return f"<ul>{''.join(f'<li>{prose(line)}</li>' for line in lines)}</ul>"


def swatch(comparison: Comparison, name: str) -> str:
    """A dot in the colour that the arm has in the figures; nothing for a name that is no arm."""
    if name not in comparison.arms:
        return ""
    colour = "currentColor" if name == comparison.baseline else style(comparison, name).colour
    return f'<span class="swatch" style="background:{colour}"></span>'


def scroll(label: str, body: str) -> str:
    """A region that scrolls sideways on a narrow screen, by keyboard too."""
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(label)}">{body}</div>'
    )


def table(
    caption: str, heads: list[str], body: list[list[str]], words: tuple[str, ...] = ()
) -> str:
    """A table whose first column heads the rows; columns named in `words` are aligned left.

    Cells are escaped, drawings apart. A column that has nothing but dashes is left out.
    """
    kept = [i for i in range(len(heads)) if not i or any(row[i] not in ("", NONE) for row in body)]
    heads, body = [heads[i] for i in kept], [[row[i] for i in kept] for row in body]
    kinds = [' class="word"' if head in words else "" for head in heads]
    pairs = list(zip(heads, kinds, strict=True))
    top = "".join(f'<th scope="col"{kind}>{escape(head)}</th>' for head, kind in pairs)
    lines = []
    for first, *rest in body:
        cells = "".join(
            f"<td{kind}>{cell if isinstance(cell, Drawing) else prose(cell)}</td>"
            for cell, kind in zip(rest, kinds[1:], strict=True)
        )
        lines.append(f'<tr><th scope="row">{escape(first)}</th>{cells}</tr>')
    return scroll(
        caption,
        f"<table><caption>{escape(caption)}</caption><thead><tr>{top}</tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table>",
    )
