"""What each expert was given, in short; routing.html beside the report has it in full."""

from itertools import groupby

from experiments.report.page.markup import prose, table
from experiments.results.routing import PAGE, Routing
from experiments.text import percent, shown


def routing(found: Routing | None) -> str:
    """The link, its finding and a folded table for each run; nothing where none was traced."""
    if found is None:
        return ""
    tables = []
    for (run, layer), rows in groupby(found.samples, key=lambda row: (row.run, row.layer)):
        lines = [
            [str(row.expert), percent(row.share), " · ".join(map(shown, row.tokens)) or "none"]
            for row in rows
        ]
        title = f"Layer {layer} of {run}: tokens that an expert has more of than its share"
        body = table(title, ["Expert", "Share of choices", "Tokens"], lines, words=("Tokens",))
        tables.append(f"<details><summary>{prose(run)}</summary>{body}</details>")
    return (
        f'<p>{prose(found.finding)} <a href="{PAGE}">Token by token: {PAGE}</a>.</p>'
        + "".join(tables)
        + f"<p>Counted over {found.traced:,} held-out tokens.</p>"
    )
