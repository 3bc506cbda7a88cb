"""A small data set that several files of tests read."""

import pytest

from moe.data import loader
from tests.fakes.documents import DATA, some_documents


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def dataset(data_dir):
    return loader.load(DATA, 257, data_dir, some_documents())
