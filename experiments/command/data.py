"""`data prepare`: a data set of the TFDS catalogue, downloaded and prepared."""

from collections.abc import Sequence

from experiments.command.contract import Command
from experiments.command.flags import Given
from moe.registry import Mistake, no_such


def act(words: Sequence[str], given: Given) -> None:
    """Prepares the named set and says where it is; raises Mistake, one line."""
    action, name = words
    if action != "prepare":
        raise Mistake(f"data {action}: {no_such('action', action, ['prepare'])}")
    from moe.data.sources import catalogue

    print(f"prepared: {catalogue.prepare(name)}")


COMMAND = Command(
    words="prepare NAME",
    act=act,
    examples=("prepare ag_news_subset", "prepare wiki40b/en"),
)
