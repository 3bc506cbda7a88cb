"""What is installed: every module and no name too many, and a command that works anywhere."""

import importlib.metadata
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile

import pytest

import moe

ROOT = pathlib.Path(__file__).parent.parent
PACKAGES = {"moe": "moe", "configs": "moe_experiments/configs"}
PACKAGES |= {"experiments": "moe_experiments/experiments", "moe_experiments": "moe_experiments"}
NOT_READ = {".md", ".png"}  # what no code reads, but for the sources of the corpus
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
BUILD = ["--no-deps", "--no-build-isolation", "--no-index"]

TEXT = "".join(
    f"Line {n} of a text that is long enough to be held out in part.\n" for n in range(99)
)
RUN = ["run", "dense_topk_hash", "--arms=dense", "--seeds=0", "--set=train.steps=2"]
RUN += ["--set=model.num_layers=1", "--set=model.vocab_size=300", "--set=data.sequence_length=16"]


def written():
    """Where in an installation every file of a package belongs that runs or is read."""
    found = set()
    for package, place in PACKAGES.items():
        for path in (ROOT / package).rglob("*"):
            read = path.suffix not in NOT_READ or path.name == "SOURCES.md"
            if path.is_file() and read and "__pycache__" not in path.parts:
                found.add(f"{place}/{path.relative_to(ROOT / package).as_posix()}")
    return found


def outcome(command, folder, **environment):
    """Runs a command in a folder that is no clone, without the clone's path."""
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = list(map(str, command))
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, env={**kept, **environment}
    )


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A copy to build from: setuptools writes into the folder, and reads what it wrote before."""
    folder = tmp_path_factory.mktemp("clone")
    for package in PACKAGES:
        shutil.copytree(
            ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    for path in ROOT.iterdir():
        if path.is_file() and path.suffix in (".py", ".toml", ".md", ".txt", ""):
            shutil.copy(path, folder)
    return folder


@pytest.fixture(scope="module")
def wheel(clone, tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    done = outcome([*PIP, "wheel", *BUILD, f"--wheel-dir={folder}", clone], folder)
    assert done.returncode == 0, done.stderr
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The folder of an installation, and of its command."""
    folder = tmp_path_factory.mktemp("installed")
    done = outcome(
        [*PIP, "install", "--no-deps", "--no-index", f"--target={folder}", wheel], folder
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def editable(clone, tmp_path_factory):
    """The Python of an environment with `pip install -e`, and all else from this one's."""
    folder = tmp_path_factory.mktemp("editable")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = folder / "bin" / "python"
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "all_else.pth").write_text(os.path.dirname(os.path.dirname(pytest.__file__)))
    done = outcome([*PIP, "--python", python, "install", *BUILD, "--editable", clone], folder)
    assert done.returncode == 0, done.stderr
    return python


@pytest.mark.slow
def test_the_wheel_holds_every_module_and_every_file_that_code_reads(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    packed = {name for name in names if ".dist-info/" not in name}
    assert packed == written()
    assert "moe/py.typed" in packed and any(name.endswith("/SOURCES.md") for name in packed)
    assert any(name.endswith(".css") for name in packed)
    assert {name.split("/")[0] for name in packed} == {"moe", "moe_experiments"}


@pytest.mark.slow
def test_the_metadata_say_version_licence_and_what_is_needed(installed):
    (found,) = importlib.metadata.distributions(path=[str(installed)])
    assert found.name == "moe-measured" and found.version == moe.__version__
    assert found.metadata["License-Expression"] == "Apache-2.0"
    for name, extra in (
        ("requirements", None),
        ("requirements-gs", "gs"),
        ("requirements-dev", "test"),
        ("requirements-tpu", "tpu"),
        ("requirements-cuda12", "cuda12"),
        ("requirements-cuda13", "cuda13"),
    ):
        lines = (ROOT / f"{name}.txt").read_text("utf-8").splitlines()
        wanted = [line.split("#")[0].strip() for line in lines if not line.startswith("#")]
        mark = f'; extra == "{extra}"' if extra else ""
        assert {line + mark for line in wanted} <= set(found.requires)


@pytest.mark.slow
def test_the_installed_command_works_from_another_folder(installed, tmp_path):
    path = {"PYTHONPATH": str(installed)}
    imports = outcome([sys.executable, "-c", "import moe; print(moe.__file__)"], tmp_path, **path)
    assert pathlib.Path(imports.stdout.strip()) == installed / "moe" / "__init__.py"
    for name in ("experiments", "configs", "launch", "tests"):
        assert outcome([sys.executable, "-c", f"import {name}"], tmp_path, **path).returncode == 1
    script = installed / "bin" / "moe-experiments"
    for command in ([sys.executable, script], [sys.executable, "-m", "moe_experiments"]):
        listed = outcome([*command, "list", "hash_random"], tmp_path, **path)
        assert listed.returncode == 0 and "fixed random table" in listed.stdout, listed.stderr
        called = "python -m moe_experiments" if "-m" in command else "moe-experiments"
        helped = outcome([*command, "run", "--help"], tmp_path, **path)
        assert helped.stdout.startswith(f"usage: {called} run STUDY[/ARM] "), helped.stderr
        wrong = outcome([*command, "show", "dense_topk_hash", "--size=huge"], tmp_path, **path)
        assert wrong.returncode == 2 and wrong.stderr.startswith("error: --size=huge")


def test_without_the_command_its_kinds_are_told_in_one_line(tmp_path):
    """The library alone, as `pip install` leaves it on the path of a program."""
    (tmp_path / "moe").symlink_to(ROOT / "moe")
    code = "from moe import registry; assert registry.names('router'); registry.names({!r})"
    for kind, package in (("study", "experiments"), ("size", "configs")):
        done = outcome([sys.executable, "-c", code.format(kind)], tmp_path)
        line = done.stderr.splitlines()[-1]
        assert line.startswith(f"moe.registry.Mistake: {kind}: needs the package '{package}' of ")
        assert "; valid here: router, score, " in line and "study" not in line.partition(";")[2]


@pytest.mark.slow
def test_the_installed_command_trains_in_processes_of_its_own(installed, tmp_path):
    for n in range(3):
        (tmp_path / "texts" / f"desk{n}").mkdir(parents=True)
        for part in "abc":
            (tmp_path / "texts" / f"desk{n}" / f"{part}.txt").write_text(TEXT.replace("text", part))
    words = [
        *RUN,
        f"--set=data.source=folder:{tmp_path / 'texts'}",
        f"--workdir={tmp_path / 'run'}",
    ]
    done = outcome(
        [sys.executable, installed / "bin" / "moe-experiments", *words, "--jobs=1"],
        tmp_path,
        PYTHONPATH=str(installed),
        MOE_DATA_DIR=str(tmp_path / "cache"),
    )
    assert done.returncode == 0, done.stderr
    assert "unigram entropy" in done.stdout
    assert (tmp_path / "run" / "dense" / "seed0" / "result.json").exists()
    assert (tmp_path / "run" / "report.html").stat().st_size > 10_000


@pytest.mark.slow
def test_an_editable_installation_adds_no_name_either(editable, clone, tmp_path):
    imports = outcome([editable, "-c", "import moe; print(moe.__file__)"], tmp_path)
    assert pathlib.Path(imports.stdout.strip()) == clone / "moe" / "__init__.py"
    for name in ("experiments", "configs"):
        assert outcome([editable, "-c", f"import {name}"], tmp_path).returncode == 1
    listed = outcome([editable.with_name("moe-experiments"), "list", "hash_random"], tmp_path)
    assert listed.returncode == 0 and "fixed random table" in listed.stdout, listed.stderr


def test_the_version_is_written_once():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    assert "version" in project["project"]["dynamic"]
    assert re.fullmatch(r"0\.\d+\.\d+", moe.__version__)


def test_a_clone_has_the_command_under_its_installed_name_too():
    listed = outcome([sys.executable, "-m", "moe_experiments", "list", "hash_random"], ROOT)
    assert listed.returncode == 0 and "fixed random table" in listed.stdout, listed.stderr
