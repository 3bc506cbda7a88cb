"""What `data.source` names, parsed from the text of the field."""

from pathlib import Path

import pytest

from moe.data.data import Data
from moe.data.sources.contract import Folder, Packages, Tfds, parse


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("packages", Packages()),
        ("library", Packages("library")),
        ("folder:my/texts", Folder(Path("my/texts"))),
        ("folder:~/texts", Folder(Path.home() / "texts")),
        ("folder:a:b+c", Folder(Path("a:b+c"))),
        ("tfds:lm1b", Tfds(("lm1b",))),
        ("tfds:wiki40b/en+wiki40b/de:1.3.0", Tfds(("wiki40b/en", "wiki40b/de:1.3.0"))),
    ],
)
def test_a_source_is_what_its_text_says(text, source):
    assert parse(text) == source == Data(source=text).text


@pytest.mark.parametrize(
    "text",
    ["", "package", "packages:", "folder:", "folder", "tfds:", "tfds:a+", "tfds:a b", "x"],
)
def test_another_text_is_one_line(text):
    with pytest.raises(ValueError) as error:
        Data(source=text).check("data", 4096)
    assert str(error.value) == (
        f"data.source={text}: unknown; valid: packages, library, folder:PATH, tfds:NAME, "
        "tfds:NAME/CONFIG, tfds:NAME+NAME"
    )
