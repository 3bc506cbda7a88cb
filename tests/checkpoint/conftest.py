"""The folder of checkpoints that several files of tests start from."""

import pytest

from tests.fakes.states import written


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """A folder with the checkpoints of steps 0, 10 and 20."""
    directory = tmp_path_factory.mktemp("three")
    assert written(directory, {0: None, 10: 3.0, 20: 2.0}) == [0, 10, 20]
    return directory
