"""`analyze`: traces of what the routers of trained runs did with every token of a text."""

import pathlib
from collections.abc import Sequence

from absl import flags as absl_flags

from experiments.command.contract import Command
from experiments.command.flags import Given
from experiments.results.routing import PAGE
from moe import files
from moe.registry import Mistake

absl_flags.DEFINE_string(
    "text", None, "a text file or FOLDER/DOMAIN/SOURCE; default: held-out text"
)
absl_flags.DEFINE_integer("tokens", None, "at most so many of the text", lower_bound=1)
absl_flags.DEFINE_string("out", None, "the file of the trace; default: trace.parquet of the run")
absl_flags.DEFINE_string("page", None, "the explorer's page; default: beside several runs")
absl_flags.DEFINE_string("step", "newest", "of the checkpoint: newest, best or a number")
absl_flags.DEFINE_boolean("metrics", False, "also metrics.json beside the trace: all its metrics")
absl_flags.DEFINE_boolean("validate", False, "check traces instead: files, or those of runs")


def act(words: Sequence[str], given: Given) -> None:
    """Writes, or checks, the traces of all that the words name; a page of them, if several."""
    from experiments.runner import traced

    if given.step not in ("newest", "best") and not given.step.isdecimal():
        raise Mistake(f"--step={given.step}: must be newest, best or a whole number")
    text, out = _path(given.text, "--text"), _path(given.out, "--out")
    if given.validate:
        _validate(words, given.step, out)
        return
    if out is not None and not out.parent.is_dir():
        raise Mistake(f"--out={out}: there is no folder {out.parent}")
    found = [place for word in words for place in traced.places(word, given.step)]
    page = _path(given.page, "--page")
    if page is not None and not page.parent.is_dir():
        raise Mistake(f"--page={page}: there is no folder {page.parent}")
    asked = traced.Asked(given.step, text, given.tokens, out, given.metrics)
    written = traced.trace_all(found, asked, print)
    if page is not None:
        print(_explore(page, list(written)))
    elif len(written) > 1:
        try:
            print(_explore(traced.common_folder(written.values()) / PAGE, list(written)))
        except Mistake as error:
            print(f"no page: {error}")


def _explore(page: pathlib.Path, paths: Sequence[pathlib.Path]) -> str:
    """Writes the page of the traces and says where it is."""
    from experiments.explorer import explorer
    from moe.analysis import trace

    chosen = explorer.choose([trace.about(path) for path in paths])
    tokens = explorer.write(page, [trace.read(paths[i]) for i in chosen])
    of = f"{len(chosen)} of {len(paths)}" if len(chosen) < len(paths) else str(len(paths))
    return f"page: {page}: runs: {of}, tokens: {tokens:,}"


def _path(text: str | None, flag: str) -> pathlib.Path | None:
    return None if text is None else files.place(text, f"{flag}={text}")


def _validate(words: Sequence[str], step: str, out: pathlib.Path | None) -> None:
    """Files by themselves; of a run its trace, or the file --out, which must be of its model."""
    from experiments.runner import traced

    for word in words:
        path = files.place(word, f"analyze {word}")
        if not path.is_dir():
            print(traced.validate(path))
            continue
        for place in traced.places(word, step):
            print(traced.validate(out or place.name, place))


COMMAND = Command(
    words="RUN [RUN...]",
    act=act,
    flags=("text", "tokens", "out", "page", "step", "metrics", "validate"),
    examples=(
        "runs/first/top2/seed0",
        "runs/first --tokens=100000 --metrics",
        "runs/first/top1/seed0 runs/first/hash_balanced/seed0 --page=two.html",
        "runs/first/top2/seed0 --step=best --text=my/book.txt",
        "runs/first --validate",
        "book.parquet --validate",
    ),
)
