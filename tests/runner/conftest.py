"""What the tests of the runner share."""

import pytest

from experiments.figures import draw


@pytest.fixture
def undrawn(monkeypatch):
    """Reports without figures, for tests of everything else."""
    monkeypatch.setattr(draw, "draw", lambda comparison, folder: [])
