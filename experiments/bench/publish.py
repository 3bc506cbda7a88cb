"""Fills the tables of docs/dispatch.md from benchmark results in docs/bench/.

python -m experiments.bench.publish, after copying what `bench ... --workdir=DIR` wrote. A table
stands between `<!-- NAME -->` and `<!-- end -->`.
"""

import json
import pathlib
import re
from collections.abc import Callable

ROOT = pathlib.Path(__file__).parents[2]
RESULTS = ROOT / "docs/bench"
PAGES = (ROOT / "docs" / "dispatch.md",)


def filled(text: str) -> str:
    """The text of a page with its tables made anew."""

    def fill(match: re.Match) -> str:
        return f"<!-- {match[1]} -->\n\n{TABLES[match[1]]()}\n\n<!-- end -->"

    return re.sub(r"<!-- ([\w ]+) -->\n.*?<!-- end -->", fill, text, flags=re.DOTALL)


def read(name: str):
    """The results of docs/bench/NAME.json."""
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _shape(shape: list[int]) -> str:
    _, D, F, E, k = shape
    return f"D={D} F={F} E={E} k={k}"


def _by_mechanism(rows: list[dict], columns: list, column_of: Callable, cell: Callable):
    """A line of cells for each mechanism, in the order of the rows."""
    found = {(row["mechanism"], column_of(row)): cell(row) for row in rows}
    names = dict.fromkeys(row["mechanism"] for row in rows if row["mechanism"] != "matmul")
    return [[f"`{n}`", *(found.get((n, column), "") for column in columns)] for n in names]


def layer() -> str:
    """Every mechanism under even load: time over the dense twin's, share of the matmul peak."""
    rows = [row for row in read("layer") if row["skew"] == "uniform"]
    columns = list(dict.fromkeys(map(lambda row: tuple(row["shape"]), rows)))
    cells = _by_mechanism(
        rows,
        columns,
        lambda row: tuple(row["shape"]),
        lambda row: f"{row['ratio']:.2f} ({row['peak']:.0%})",
    )
    return table(["", *map(_shape, columns)], cells)


def skews() -> str:
    """One shape under every load."""
    rows = read("skews")
    columns = list(dict.fromkeys(row["skew"] for row in rows))

    def cell(row):
        dropped = f", {row['drop_rate']:.0%} dropped" if row["drop_rate"] else ""
        return f"{row['ratio']:.2f}{dropped}"

    cells = _by_mechanism(rows, columns, lambda row: row["skew"], cell)
    return table([_shape(rows[0]["shape"]), *columns], cells)


def growth() -> str:
    """Time and memory against the number of experts, active FLOPs unchanged."""
    rows = [row for row in read("growth") if row["mechanism"] in ("ragged", "gather", "einsum")]
    columns = list(dict.fromkeys(row["shape"][3] for row in rows))
    base = {row["mechanism"]: row for row in rows if row["shape"][3] == columns[0]}

    def cell(row):
        _, D, F, E, _ = row["shape"]
        rest = row["temp_bytes"] - 4 * 3 * E * D * F
        own = base[row["mechanism"]]["ratio"]
        return f"{row['ratio']:.2f} ({row['ratio'] / own:.2f} x), {rest / 1e6:,.0f} MB"

    cells = _by_mechanism(rows, columns, lambda row: row["shape"][3], cell)
    return table(["", *(f"E = {E}" for E in columns)], cells)


def groups() -> str:
    """What routing groups cost and save under einsum."""
    rows = read("groups")
    factors = list(rows[0]["drop_rate"]["uniform"])
    head = ["group", "2 T_g / 3 F", "counted", "time / dense"]
    head += [f"drops at {f}" for f in factors] + [f"Zipf, at {f}" for f in factors]
    cells = [
        [
            str(row["group"]),
            f"{row['law']:.1%}",
            f"{row['flops']:.1%}",
            f"{row['ratio']:.2f}",
            *(f"{row['drop_rate'][skew][f]:.1%}" for skew in ("uniform", "zipf") for f in factors),
        ]
        for row in rows
    ]
    return table(head, cells)


def _steps(name: str) -> str:
    found = read(name)
    ratio = {row["arm"]: row["ratio"] for row in found["steps"]}
    parts = list(dict.fromkeys(p for row in found["parts"] for p in row))[2:]
    cells = [
        [
            f"`{row['arm']}`",
            f"{ratio[row['arm']]:.2f}",
            *(f"{row[p]:.0%}" if p in row else "" for p in parts),
        ]
        for row in found["parts"]
    ]
    return table(["arm", "step / dense", *parts], cells)


TABLES = {
    "layer": layer,
    "skews": skews,
    "growth": growth,
    "groups": groups,
    "steps tiny": lambda: _steps("step_tiny"),
    "steps small": lambda: _steps("step_small"),
}


def main() -> None:
    """Writes the pages."""
    for page in PAGES:
        page.write_text(filled(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
