"""What every test relies on: 8 CPU devices, strict shapes, and tests that do run in CI."""

import gc
import itertools
import os
import pathlib
import shutil
import tempfile

import jax
import pytest

jax.config.update("jax_platforms", os.environ.get("JAX_PLATFORMS", "cpu"))
jax.config.update("jax_num_cpu_devices", 8)  # must precede the first use of a device
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_disable_most_optimizations", True)  # tests compile more than they compute
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"  # so do the processes that they start
FLAGS = ["--xla_cpu_parallel_codegen_split_count=1"]  # a process for each core compiles already
if jax.__version_info__ < (0, 11):  # later ones know no such flag
    FLAGS.append("--xla_cpu_use_fusion_emitters=false")  # a third quicker
os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *FLAGS])

# What one process compiled is there for those that tests start and for the other workers.
STARTED_HERE = "PYTEST_XDIST_WORKER" not in os.environ
if STARTED_HERE:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="programs-")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
PROGRAMS = os.environ["JAX_COMPILATION_CACHE_DIR"]
jax.config.update("jax_compilation_cache_dir", PROGRAMS)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)

MAPPED = pathlib.Path("/proc/self/maps")  # Linux lets a process have 65,530 lines here
MOST_MAPPED = 40_000
NTH_TEST = itertools.cycle(range(8))  # counting the lines takes 20 ms, so not after every test

# Plugins of what others brought along: that of trio warns where `gc.freeze` hides its objects.
os.environ["HYPOTHESIS_NO_PLUGINS"] = "1"


@pytest.fixture(autouse=True)
def _programs_are_unloaded_before_linux_runs_out_of_maps():
    """Each program that XLA compiles takes a few maps; past the limit the compiler crashes."""
    yield
    if next(NTH_TEST) or not MAPPED.exists():
        return
    if len(MAPPED.read_bytes().splitlines()) > MOST_MAPPED:
        jax.clear_caches()


# Begun first, so that no worker is left alone with one: what takes longest, the longest first.
LONG = """
training/test_exactness runner/test_faults runner/test_processes routers/test_extremes
runner/test_run data/test_corpus dispatch/test_matrix routers/test_routers training/test_gradients
training/test_train model/test_model dispatch/test_parallel dispatch/test_dispatch
dispatch/test_causal test_notebooks routers/test_layout bench/test_step launch/test_here
test_package runner/test_killed data/test_folder runner/test_interrupts
""".split()


def pytest_collection_modifyitems(items):
    """The order of modules; that of the tests in one stays."""
    here = pathlib.Path(__file__).parent
    place = {here / f"{name}.py": number for number, name in enumerate(LONG)}
    items.sort(key=lambda item: place.get(item.path, len(LONG)))


def pytest_collection_finish():
    """What is imported stays; the collector need not walk through it again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def optimised():
    """What is measured is the program that a run would get, unlike in other tests."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


def pytest_unconfigure():
    """Removes the programs where they were first asked for, after all workers."""
    if STARTED_HERE:
        shutil.rmtree(PROGRAMS, ignore_errors=True)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Turns the skip of a multi-device, TPU or browser test into a failure where CI is set."""
    report = yield
    for marker in ("multi_device", "tpu", "browser"):
        if report.skipped and os.environ.get("CI") and item.get_closest_marker(marker):
            report.outcome = "failed"
            report.longrepr = f"a {marker} test must not skip in CI: {report.longrepr}"
    return report
