"""The code that docs/extend.md shows, which tests do as a stranger would."""

import pathlib
import re

EXTEND = pathlib.Path(__file__).parents[2] / "docs" / "extend.md"


def example(part):
    """The block of Python that has this text."""
    blocks = re.findall(r"```python\n(.*?)```", EXTEND.read_text("utf-8"), re.DOTALL)
    (block,) = [block for block in blocks if part in block]
    return block
