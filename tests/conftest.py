"""What every test relies on: 8 CPU devices, strict shapes, and tests that do run in CI."""

import os

import jax
import pytest

jax.config.update("jax_platforms", os.environ.get("JAX_PLATFORMS", "cpu"))
jax.config.update("jax_num_cpu_devices", 8)  # must precede the first use of a device
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_disable_most_optimizations", True)  # tests compile more than they compute


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Turns the skip of a multi-device or TPU test into a failure where CI is set."""
    report = yield
    for marker in ("multi_device", "tpu"):
        if report.skipped and os.environ.get("CI") and item.get_closest_marker(marker):
            report.outcome = "failed"
            report.longrepr = f"a {marker} test must not skip in CI: {report.longrepr}"
    return report
