"""make: what it prints, which environment it takes, and that no tier of tests hides the other."""

import importlib.metadata
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
MAKEFILE = (ROOT / "Makefile").read_text("utf-8")
MINE = f"{sys.version_info[0]}.{sys.version_info[1]}"


def make(*words):
    """Runs make in the clone, out of the reach of variables of the shell."""
    unset = [f"--unset={name}" for name in ("PYTHON", "VENV", "MAKEFLAGS", "MAKELEVEL")]
    command = ["env", *unset, "make", "--no-print-directory", "BROWSER=true", *map(str, words)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.fixture
def environment(tmp_path):
    """Makes a folder that looks like an environment: a Python that writes down what it is asked."""

    def build(number, then=""):
        python = tmp_path / "bin" / "python"
        python.parent.mkdir()
        (tmp_path / "pyvenv.cfg").write_text("")
        real = f'*requires*) exec {sys.executable} "$@";;'  # asks the metadata of this JAX
        says = f'case "$1" in -c) case "$2" in {real} esac; echo {number}; exit;; esac\n'
        says += f'echo "$*" >> {tmp_path}/asked\n{then}'
        python.write_text(f"#!/bin/sh\n{says}\n")
        python.chmod(0o755)
        return tmp_path

    return build


def test_make_alone_says_what_it_can_do():
    done = make()
    assert done.returncode == 0
    (targets,) = re.findall(r"\.PHONY:(.*)", MAKEFILE)
    for name in set(targets.split()) - {"environment"}:
        assert re.search(rf"^  {name} +\S", done.stdout, re.MULTILINE), name


def test_another_python_is_refused_in_one_line_and_nothing_changes(environment):
    folder = environment("3.99")
    done = make("lint", f"VENV={folder}", f"PYTHON={sys.executable}")
    assert done.returncode == 2
    assert f"is Python {MINE} and {folder} holds 3.99" in done.stderr
    assert "make clean" in done.stderr and f"VENV=.venv-py{MINE.replace('.', '')}" in done.stderr
    assert done.stdout == "" and done.stderr.count("\n") == 1
    assert not (folder / "asked").exists()


def test_a_python_that_is_missing_is_one_line(environment, tmp_path):
    done = make("lint", f"VENV={tmp_path / 'none'}", "PYTHON=no-such-python")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "PYTHON=no-such-python is missing or older than 3.11" in done.stderr
    folder = environment("")  # a Python that no longer starts
    done = make("lint", f"VENV={folder}")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert f"the Python of {folder} is gone" in done.stderr


def test_an_environment_is_used_whatever_python_made_it_and_updated_not_cleared(environment):
    folder = environment("3.99")
    (folder / "mine").write_text("kept")
    (folder / ".runtime-1").write_text("")  # of other requirements
    for count in (2, 2):  # the second time nothing is installed
        done = make("lint", f"VENV={folder}")
        assert done.returncode == 0, done.stderr
        asked = (folder / "asked").read_text().splitlines()
        assert sum("pip install" in line for line in asked) == count
        assert not any(line.startswith("-m venv") for line in asked)
    assert (folder / "mine").exists() and not (folder / ".runtime-1").exists()


@pytest.mark.parametrize(
    ("fails", "said", "code"),
    [
        ("not slow", "fast tests failed, slow tests passed", 2),
        ("-m slow", "fast tests passed, slow tests failed", 2),
        ("nothing", "fast tests passed, slow tests passed", 0),
    ],
)
def test_both_tiers_run_whatever_the_first_says(environment, fails, said, code):
    folder = environment("3.99", f'case "$*" in *"{fails}"*) exit 1;; esac')
    done = make("test", f"VENV={folder}")
    asked = [line for line in (folder / "asked").read_text().splitlines() if "pytest" in line]
    assert ["not slow" in line for line in asked] == [True, False]
    assert done.returncode == code and said in done.stdout


def test_what_runs_on_an_accelerator_is_installed_beside_the_rest_with_pins(environment):
    folder = environment("3.11")
    done = make("install", f"VENV={folder}", "WITH=cuda12 gs")
    assert done.returncode == 0, done.stderr
    (line,) = [each for each in (folder / "asked").read_text().splitlines() if "cuda" in each]
    files = ("requirements.txt", "requirements-cuda12.txt", "requirements-gs.txt")
    assert line.endswith(" ".join(f"-r {name}" for name in files))
    assert "-c constraints/py311.txt" in line
    refused = make("install", f"VENV={folder}", "WITH=cuda")
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1
    assert "WITH=cuda: must be some of cuda12 cuda13 dev gs tpu" in refused.stderr


def test_the_tests_for_tpus_take_the_libtpu_that_jax_asks_for(environment):
    folder = environment("3.11")
    assert make("test-tpu", f"VENV={folder}").returncode == 0
    (line,) = [each for each in (folder / "asked").read_text().splitlines() if "--target" in each]
    asked = [each for each in importlib.metadata.requires("jax") if each.startswith("libtpu==")]
    assert line.split()[-1] == asked[0].split(";")[0].strip()


@pytest.mark.parametrize("python", ["311", "312", "313"])
def test_the_pins_are_what_the_pinned_jax_asks_for(python):
    lines = (ROOT / f"constraints/py{python}.txt").read_text("utf-8").splitlines()
    pins = dict(line.split("==") for line in lines)
    assert lines == sorted(lines, key=str.lower) and len(pins) == len(lines)
    # What the metadata of the two JAX say.
    libtpu = {"0.10.2": "0.0.42.", "0.12.0.1": "0.0.50."}[pins["jax"]]
    assert pins["libtpu"].startswith(libtpu)
    for cuda in ("cuda12", "cuda13"):
        for name in (f"jax-{cuda}-plugin", f"jax-{cuda}-pjrt", "jaxlib"):
            assert pins[name] == pins["jax"]
    # With CUDA 12 every library has the version in its name, with 13 only some.
    libraries = ("cublas", "cuda-cupti", "cuda-nvcc", "cuda-runtime", "cufft", "cusolver")
    for library in (*libraries, "cusparse", "nvjitlink"):
        assert pins[f"nvidia-{library}-cu12"] and pins[f"nvidia-{library}"]
    for library in ("cudnn", "nccl", "nvshmem"):
        assert pins[f"nvidia-{library}-cu12"] and pins[f"nvidia-{library}-cu13"]


def test_accelerators_come_by_the_extras_of_jax():
    # So that JAX says which libtpu, and which libraries of CUDA, it goes with.
    for extra in ("tpu", "cuda12", "cuda13"):
        lines = (ROOT / f"requirements-{extra}.txt").read_text("utf-8").splitlines()
        assert [line for line in lines if not line.startswith("#")] == [f"jax[{extra}]>=0.10"]
