"""Data sets of the TFDS catalogue: the real reading, of small sets prepared under their names."""

import errno
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds

from moe.data import loader
from moe.data.data import Data
from moe.data.sources import catalogue, contract
from moe.fields import check_fields

L = 8
NAMES = ["World", "Sports", "Business", "Sci/Tech"]
TEXT = {"text": tfds.features.Text()}
NEWS = {
    "label": tfds.features.ClassLabel(names=NAMES),
    "title": tfds.features.Text(),
    "description": tfds.features.Text(),
}
WIKI = TEXT | {"version_id": tfds.features.Text(), "wikidata_id": tfds.features.Text()}


def news(split):
    for i in range(40 if split == "train" else 16):
        kind = NAMES[i % 4]
        row = {"label": kind, "title": f"{kind} {split}", "description": f"news number {i} é"}
        yield i, row


def wiki(language):
    def rows(split):
        for i in range(12):
            body = f"{language} body of {split} {i}_NEWLINE_second line"
            text = f"\n_START_ARTICLE_\nTitle {i}\n_START_SECTION_\nPart\n_START_PARAGRAPH_\n{body}"
            yield i, {"text": text, "version_id": "1", "wikidata_id": f"Q{i}"}

    return rows


def lines(split):
    for i in range(20):
        yield i, {"text": f"{split} sentence number {i} of the corpus ."}


def prepare(name, version, features, splits, rows, config=None, file_format="array_record"):
    """What TFDS leaves on the disk, with the features of the real builder.

    Over budget: each is what a builder is asked for.
    """

    def info(self):
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    members = {
        "VERSION": tfds.core.Version(version),
        "name": name,
        "_info": info,
        "_split_generators": lambda self, _: {split: rows(split) for split in splits},
        "_generate_examples": lambda self: None,
    }
    if config:
        members["BUILDER_CONFIGS"] = [tfds.core.BuilderConfig(name=config, version=version)]
    with tfds.core.registered.skip_registration():
        builder = type("Prepared", (tfds.core.GeneratorBasedBuilder,), members)
        made = builder(data_dir=str(catalogue.kept_in()), file_format=file_format)
    made.download_and_prepare()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder of prepared data sets that TFDS_DATA_DIR names."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("tfds")
        patch.setenv("TFDS_DATA_DIR", str(folder))
        prepare("ag_news_subset", "1.0.0", NEWS, ("train", "test"), news)
        prepare("lm1b", "1.1.0", TEXT, ("train", "test"), lines)
        for language in ("de", "en"):
            splits = ("train", "validation", "test")
            prepare("wiki40b", "1.3.0", WIKI, splits, wiki(language), language)
        yield folder


def load(source, data_dir, tokenizer="bytes", vocab_size=257, **fields):
    return loader.load(Data(tokenizer, L, 4, source=source, **fields), vocab_size, data_dir)


def texts(split, dataset):
    ends = np.cumsum(split.tokens)
    return [dataset.decode(split.id[end - n : end]) for end, n in zip(ends, split.tokens)]  # noqa: B905


def test_the_classes_of_ag_news_are_desks(place, tmp_path):
    dataset = load("tfds:ag_news_subset", tmp_path)
    assert dataset.desks == dataset.classes == tuple(NAMES)
    train = dataset.tokens.train
    assert len(train.tokens) == 40 and len(dataset.tokens.held_out.tokens) == 16
    for text, desk in zip(texts(train, dataset), train.desk, strict=True):
        title, description = text.split("\n")
        number = int(description.removeprefix("news number ").removesuffix(" é"))
        assert title == f"{NAMES[desk]} train" and desk == number % 4
    for y, desk in enumerate(NAMES):
        batch = dataset.held_out(desk)
        assert (batch.desk_BL == y).all() and "train" not in dataset.decode(batch.id_BL.ravel())
    assert dataset.batch(0, 3, 4).id_BL.shape == (4, L)


def test_tokens_are_those_of_a_tfds_data_source(place, tmp_path):
    dataset = load("tfds:lm1b", tmp_path)
    source = tfds.data_source("lm1b:1.1.0", split="train", data_dir=place)
    assert texts(dataset.tokens.train, dataset) == [row["text"].decode() for row in source]
    assert dataset.desks == ("lm1b",) and set(dataset.tokens.train.keys) == {""}


def test_several_sets_are_several_desks(place, tmp_path):
    dataset = load("tfds:wiki40b/en+wiki40b/de", tmp_path)
    assert dataset.desks == ("wiki40b/en", "wiki40b/de")
    split = dataset.tokens.held_out
    assert split.desk.tolist() == [0] * 12 + [1] * 12
    first = texts(split, dataset)[0]
    assert first.startswith("Title ") and "validation" in first  # not the test split
    assert "\n\nPart\n\nen body of validation" in first and first.endswith("\nsecond line\n")
    mixed = load("tfds:lm1b+ag_news_subset", tmp_path)
    assert mixed.desks == ("lm1b", *(f"ag_news_subset/{name}" for name in NAMES))
    assert set(mixed.tokens.train.desk) == set(range(5))


def test_a_limit_takes_the_first_documents_of_each_set(place, tmp_path):
    whole = load("tfds:wiki40b/en+wiki40b/de", tmp_path)
    few = load("tfds:wiki40b/en+wiki40b/de", tmp_path, max_documents=5)
    expected = texts(whole.tokens.train, whole)
    assert texts(few.tokens.train, few) == expected[:5] + expected[12:17]
    assert len(few.tokens.held_out.tokens) == 10
    assert few.fingerprint != whole.fingerprint
    again = load("tfds:wiki40b/en+wiki40b/de", tmp_path, max_documents=5)
    assert again.fingerprint == few.fingerprint


def test_a_version_may_be_named_and_the_newest_is_the_default(place, tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    for version in ("1.0.0", "1.10.0", "1.9.0"):
        prepare("lm1b", version, TEXT, ("train", "test"), lines)
    assert catalogue.find("lm1b").version == "1.10.0"
    assert catalogue.find("lm1b:1.9.0").version == "1.9.0"
    with pytest.raises(contract.SourceError, match="lm1b:2.0.0: not prepared in"):
        catalogue.find("lm1b:2.0.0")


def test_a_trained_tokeniser_is_of_the_training_split(place, tmp_path):
    dataset = load("tfds:ag_news_subset", tmp_path, "bpe", 280)
    assert dataset.vocab_size == 280 and len(dataset.encode("World train")) < 8
    assert dataset.tokenizer_fingerprint == dataset.tokenizer.fingerprint


def test_what_is_not_prepared_says_how(place, tmp_path):
    def line(name):
        with pytest.raises(contract.SourceError) as error:
            load(f"tfds:{name}", tmp_path)
        assert "\n" not in str(error.value)
        return str(error.value)

    command = "python -m experiments data prepare"
    assert line("tiny_shakespeare") == (
        f"data.source=tfds:tiny_shakespeare: not prepared in {place}; run {command} "
        "tiny_shakespeare, or set TFDS_DATA_DIR to where it is"
    )
    assert "name one of its configs: wiki40b/de, wiki40b/en; or run " in line("wiki40b")
    assert line("lm1b+c4/en").startswith("data.source=tfds:c4/en: not prepared in ")


def test_wrong_forms_are_one_line(place, tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    number = {"n": tfds.features.Scalar(np.int64)}
    prepare("numbers", "1.0.0", number, ("train", "test"), lambda _: iter([(0, {"n": 1})]))
    prepare("whole", "1.0.0", TEXT, ("train",), lines)
    prepare("tables", "1.0.0", TEXT, ("train", "test"), lines, file_format="parquet")
    for name, rule in {
        "numbers": "must have features text or title, description, has n",
        "whole": "must have a split validation or test, has train",
        "tables": "prepared as parquet in .*: must be array_record; move it away and run ",
    }.items():
        with pytest.raises(contract.SourceError, match=f"data.source=tfds:{name}: {rule}"):
            load(f"tfds:{name}", tmp_path / "cache")
    (tmp_path / "whole/1.0.0/dataset_info.json").write_text("{")
    with pytest.raises(contract.SourceError, match="dataset_info.json: is not the record of a"):
        load("tfds:whole", tmp_path / "cache")


def test_damaged_files_are_one_line(place, tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    prepare("lm1b", "1.1.0", TEXT, ("train", "test"), lines)
    record = next((tmp_path / "lm1b").rglob("*train.array_record*"))
    whole = record.read_bytes()
    for content in (whole[: len(whole) // 2], b"", whole[:200] + b"x" * 400 + whole[600:]):
        record.write_bytes(content)
        with pytest.raises(
            contract.SourceError, match="lm1b/1.1.0: damaged .*start again$"
        ) as error:
            load("tfds:lm1b", tmp_path / "cache")
        assert "\n" not in str(error.value)
        assert not list((tmp_path / "cache/tokens").glob("*"))
    record.write_bytes(whole)
    load("tfds:lm1b", tmp_path / "cache")


def test_a_second_start_needs_no_tfds(place, tmp_path):
    first = load("tfds:ag_news_subset", tmp_path).fingerprint
    code = (
        "import sys; from moe.data import loader; from moe.data.data import Data; "
        f"data = Data('bytes', {L}, 4, source='tfds:ag_news_subset'); "
        f"print(loader.load(data, 257, {str(tmp_path)!r}).fingerprint); "
        "print([m for m in ('tensorflow', 'tensorflow_datasets', 'grain') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"{first}\n[]\n"


def test_prepare_calls_tfds_and_answers_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    calls = []

    class Builder:
        def __init__(self, name, **options):
            self.data_path = tmp_path / name / "1.0.0"
            calls.append((name, options))

        def download_and_prepare(self, download_config):
            print("a bar")
            calls.append(download_config.try_download_gcs)

    monkeypatch.setattr(tfds, "builder", Builder)
    assert catalogue.prepare("lm1b") == tmp_path / "lm1b" / "1.0.0"
    assert calls == [("lm1b", {"data_dir": tmp_path, "file_format": "array_record"}), False]
    monkeypatch.undo()
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    monkeypatch.setattr(
        Builder, "download_and_prepare", lambda *_, **__: (_ for _ in ()).throw(full)
    )
    monkeypatch.setattr(tfds, "builder", Builder)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    with pytest.raises(contract.SourceError, match=f"^{tmp_path}: No space left on device; make "):
        catalogue.prepare("lm1b")
    monkeypatch.undo()
    with pytest.raises(
        contract.SourceError, match="data prepare ag_news_subst: no such data set; did "
    ):
        catalogue.prepare("ag_news_subst")
    with pytest.raises(
        contract.SourceError, match="data prepare a b: must be NAME, NAME/CONFIG or "
    ):
        catalogue.prepare("a b")


@pytest.mark.parametrize("name", ["lm1b", "c4/en", "wiki40b/en", "tiny_shakespeare"])
def test_a_failed_preparation_is_one_line(name, tmp_path, monkeypatch):
    """The real builders, whose libraries or downloads are not here."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))

    def refuse(*_, **__):
        raise ConnectionError("no network\nin a test")

    monkeypatch.setattr(tfds.download.DownloadManager, "download_and_extract", refuse)
    monkeypatch.setattr(tfds.download.DownloadManager, "download", refuse)
    with pytest.raises(
        contract.SourceError, match=f"data prepare {name}: .*need TensorFlow"
    ) as error:
        catalogue.prepare(name)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "source", ["tfds:", "tfds:a b", "tfds:a+", "folder:", "c4", "tfds:../x", ""]
)
def test_sources_are_checked_before_anything_is_read(source):
    with pytest.raises(
        ValueError, match=f"source={re.escape(source)}: unknown; valid: packages, library, folder:"
    ):
        Data(source=source).check("data", 2048)
    with pytest.raises(ValueError, match="^data.max_documents=0: must be >= 1 or none$"):
        check_fields(Data(max_documents=0), "data")
