"""The desks that the larger pinned corpus has beside those of `desks`, whose rules hold here too.

Two dictionaries, a computer algebra system, and the descriptions of web services; the list of
packages, with licences, is in SOURCES.md beside this file.
"""

import html
import json
import re
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

from moe.data.sources.contract import SourceError
from moe.data.sources.documents import Document
from moe.data.sources.packages import member, members

# Of the whole corpus: change both with any change of a byte, a label or the split.
FINGERPRINT = "3b3b31d2b2374f6fc4dee0184cfc0d020cde91559bdc4b5a028a0087b2acfac3"
TOKENS = {
    ("bpe", 2048): 32_207_690,
    ("bpe", 4096): 28_241_028,
    ("bytes", 257): 88_138_282,
}  # of training, with ends

DICTIONARIES = "uniquebible/thirdParty/dictionaries"
PROSE_WORDS = 8  # a description with fewer words says little more than a name


def dictionary(archive: Path) -> Iterator[Document]:
    """A document is the words of one dictionary that begin with the same three letters.

    The class is the dictionary: Webster's of 1828 or WordNet; the group, of both, the letters.
    """
    for name, entries in (("webster", _webster), ("wordnet", _wordnet)):
        pages = defaultdict(list)
        for word, text in entries(archive):
            pages[re.sub(r"[^a-z]", "", word.lower())[:3]].append(text)
        for letters, texts in sorted(pages.items()):
            key, label = f"dictionary/{name}/{letters}", f"dictionary/{name}"
            yield Document(key, "dictionary", label, letters, "\n".join(texts))


def _webster(archive: Path) -> Iterator[tuple[str, str]]:
    """(word, entry), a paragraph a line, in the dictionary's order."""
    for word, data in _rows(archive, "webster.dct.mybible", "relativeorder"):
        paragraphs = [_plain(paragraph) for paragraph in data.split("</p>")]
        yield word, "".join(f"{paragraph}\n" for paragraph in paragraphs if paragraph)


def _wordnet(archive: Path) -> Iterator[tuple[str, str]]:
    """(word, "word, synonyms (noun): gloss" and its examples), each gloss once, at its first word.

    The links to other glosses are left out: lists of words, and the same at both ends.
    """
    seen = set()
    for word, data in _rows(archive, "wordnet.dct.mybible", "word"):
        for kind, senses in re.findall(r"<i>(\w+)</i><ol>(.*?)</ol>", data, re.DOTALL):
            for sense in re.findall(r"<li>(.*?)</li>", senses, re.DOTALL):
                first, *rest = sense.split("<br>")
                ((synonyms, gloss),) = re.findall(
                    r"\A((?:<a [^>]*>[^<]*</a>,? ?)*)(?:; )?(.*)\Z", first, re.DOTALL
                )
                said = "; ".join(_plain(x) for x in [gloss, *rest] if x == gloss or x[:3] == "<i>")
                if said and (kind, said) not in seen:
                    seen.add((kind, said))
                    words = ", ".join([word, *re.findall(r">([^<]+)</a>", synonyms)])
                    yield word, f"{words} ({kind}): {said}\n"


def _rows(archive: Path, name: str, order: str) -> list[tuple[str, str]]:
    """(word, data) of a dictionary, which is an SQLite database in the archive."""
    connection = sqlite3.connect(":memory:")
    try:
        connection.deserialize(member(archive, f"{DICTIONARIES}/{name}"))
        query = f"select word, data from dictionary order by {order}, word collate binary"
        return connection.execute(query).fetchall()
    except sqlite3.Error as error:
        raise SourceError(f"{archive.name}: {name}: not a readable database: {error}") from error
    finally:
        connection.close()


def mathematics(archive: Path) -> Iterator[Document]:
    """A document is a source file of SymPy; the class is the package below `sympy`.

    Tests, benchmarks and what a parser generator wrote are left out.
    """
    for path, text in members(archive, ".py"):
        folders = path.split("/")
        if folders[0] != "sympy" or {"tests", "benchmarks", "_antlr"} & set(folders):
            continue
        label = folders[1] if len(folders) > 2 else "root"
        yield Document(f"mathematics/{path}", "mathematics", f"mathematics/{label}", path, text)


def services(archive: Path) -> Iterator[Document]:
    """A document is the description of a web service; the class is the protocol that it speaks.

    The group is the family of services: the first word of the name. Of a service the newest
    version counts. A description that stands in more than one service is boilerplate and left out.
    """
    newest = {path.split("/")[2]: text for path, text in members(archive, "service-2.json.gz")}
    found, seen = [], Counter()
    for name, text in newest.items():
        service = json.loads(text)
        lines = {}  # description -> the first line with it
        for line in _descriptions(name, service):
            lines.setdefault(line.partition(": ")[2], line)
        seen.update(lines.keys())
        found.append((name, service["metadata"]["protocol"], lines))
    for name, protocol, lines in found:
        text = "".join(f"{line}\n" for said, line in lines.items() if seen[said] == 1)
        key, label = f"services/{name}", f"services/{protocol}"
        yield Document(key, "services", label, re.split(r"-|v?\d", name)[0], text)


def _descriptions(name: str, part: dict) -> Iterator[str]:
    """`Name: description` of every part that has one long enough, in the order of the file."""
    text = part.get("documentation")
    if isinstance(text, str) and len((plain := _plain(text)).split()) >= PROSE_WORDS:
        yield f"{name}: {plain}"
    for inner, value in part.items():
        if isinstance(value, dict):
            yield from _descriptions(inner, value)


def _plain(text: str) -> str:
    """The text of HTML in one line."""
    text = html.unescape(re.sub(r"<[^>]*>", "", re.sub(r"</?(p|li|note|dt|dd)\b[^>]*>", " ", text)))
    return re.sub(r"\s+", " ", text).strip()


READERS: dict[str, tuple[str, Callable[[Path], Iterator[Document]]]] = {
    "dictionary": ("uniquebible", dictionary),
    "mathematics": ("sympy", mathematics),
    "services": ("botocore", services),
}
