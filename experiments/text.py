"""Numbers, values and lists as text."""

import re
from collections.abc import Collection, Mapping

NONE = "–"  # for a number that there is not


def written(value) -> str:
    """A value as --set would read it."""
    if isinstance(value, tuple):
        return ",".join(map(written, value)) or "()"
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return str(value)


def megabytes(count: float) -> str:
    return f"{count / 1e6:,.1f} MB"


def aligned(values: Mapping[str, str]) -> list[str]:
    """Indented lines "name  value" with the values under each other."""
    width = max(map(len, values), default=0)
    return [f"  {name:<{width}}  {value}" for name, value in values.items()]


def columns(rows: list[tuple[str, ...]], left: Collection[int]) -> list[str]:
    """Lines with columns of equal width; the `left` ones are aligned left, the others right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    cells = [
        [
            c.ljust(w) if i in left else c.rjust(w)
            for i, (c, w) in enumerate(zip(row, widths, strict=True))
        ]
        for row in rows
    ]
    return ["  ".join(row).rstrip() for row in cells]


def listing(names: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def cited(source: str) -> str:
    """A source as a sentence names it: `arXiv 2106.04426` for an id, others as they are."""
    return f"arXiv {source}" if re.fullmatch(r"\d{4}\.\d{4,5}", source) else source


def printable(text: str) -> str:
    """The text without what a terminal would act on: control characters as their escapes."""
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)


def shown(token: str) -> str:
    """A token as a reader sees it by itself.

    Spaces at its edges are ␣, from four on with their number; line breaks and tabs have an arrow,
    ▯ is a part of a character, and what has no shape is shown by its number.
    """
    if token == "":
        return "⟨end⟩"
    marks = {"\n": "↵", "\t": "⇥", "\ufffd": "▯"}
    text = "".join(marks.get(c) or (c if c.isprintable() else f"⟨U+{ord(c):04X}⟩") for c in token)
    return re.sub(r"^ +| +$", lambda run: _spaces(len(run[0])), text)


def _spaces(count: int) -> str:
    return "␣" * count if count < 4 else f"␣×{count}"


def percent(share: float) -> str:
    """A share as `12 %`, with a space that does not break; one decimal below 10."""
    value = 100 * share
    return f"{value:.0f}\u00a0%" if value >= 9.95 or value == 0 else f"{value:.1f}\u00a0%"


def number(value: float | None, digits: int = 4, sign: bool = False) -> str:
    """A fixed-point number with a true minus sign; a dash for None."""
    if value is None:
        return NONE
    return f"{value:{'+' if sign else ''},.{digits}f}".replace("-", "−")


def interval(low: float | None, high: float | None, digits: int = 4, sign: bool = True) -> str:
    """`low to high`, or a dash where there is no interval."""
    if low is None:
        return NONE
    return f"{number(low, digits, sign)} to {number(high, digits, sign)}"


def bracketed(low: float | None, high: float | None, digits: int = 4, sign: bool = True) -> str:
    """An interval as ` [low, high]`, to stand after its mean; nothing where there is none."""
    return "" if low is None else f" [{number(low, digits, sign)}, {number(high, digits, sign)}]"


def probability(p: float | None) -> str:
    """A p value as `p = 0.012`, `p < 0.0001` or a dash."""
    if p is None:
        return NONE
    return "p < 0.0001" if p < 1e-4 else f"p = {p:.2g}"
