"""Fields of recipes: what is missing or impossible is one line, and a dry run does nothing."""

import pytest

from launch import __main__ as launch

GKE = "gke --cluster=c --location=l --image=i"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("moon -- run", "moon: must be one of tpu-vm, queued, gke, cluster-toolkit, slur"),
        ("", "TARGET: must be one of tpu-vm"),
        ("local", "-- run STUDY --workdir=DIR ...: is missing behind the target's flags"),
        ("local -- show", "-- run STUDY --workdir=DIR ...: is missing"),
        ("local --processes=two -- run", "--processes=two: must be a number"),
        ("local --processes=0 -- run", "--processes=0: must be >= 1"),
        ("local --port=99999 -- run", "--port=99999: must be <= 65535"),
        ("local --nodes=2 -- run", "--nodes=2: local knows --dry-run, --python, --proc"),
        ("gke --name= -- run", "--name=: must be a word"),
        (
            "gke --topology=4x4 -- run",
            "--cluster: is missing; this target needs --cluster=... --loc",
        ),
        (f"{GKE} -- run", "--topology: is missing; this target needs"),
        (
            f"{GKE} --topology=4xfour -- run",
            "--topology=4xfour: must be sides of a slice, as in 4x4",
        ),
        (
            f"{GKE} --topology=2x3 -- run",
            "--chips_per_host=4: must divide the 6 chips of --topology",
        ),
        (f"{GKE} --topology=2x2 --chips_per_host=0 -- run", "--chips_per_host=0: must be >= 1"),
        (
            f"{GKE} --topology=2x2 --name=Moe -- run",
            "--name=Moe: must be up to 40 of a-z, 0-9 and -",
        ),
        ("cluster-toolkit --cluster=c -- run", "--location: is missing; this target needs"),
        ("tpu-vm --spot=maybe -- run", "--spot=maybe: must be true or false"),
        ("tpu-vm --accelerator=v9-8 -- run", "--accelerator=v9-8: must be one of v2-N, v3-N"),
        ("queued --accelerator=v6e -- run", "--accelerator=v6e: must be one of v2-N, v3-N"),
        ("tpu-vm --accelerator=tpu7x-8 -- run", "--accelerator=tpu7x-8: TPU7x is reached by gke"),
        ("slurm --time=soon -- run", "--time=soon: must be as in 90, 24:00:00 or 2-12"),
        ("slurm --nodes=0 -- run", "--nodes=0: must be >= 1"),
    ],
)
def test_a_mistake_is_one_line(words, line, capsys):
    assert launch.main(words.split()) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {line}") and said.count("\n") == 1


def test_a_line_in_a_field_is_refused(capsys):
    assert launch.main(["slurm", "--partition=a\n#SBATCH --exclusive", "--", "run"]) == 2
    assert "must be one word" in capsys.readouterr().err


@pytest.mark.parametrize("target", ["tpu-vm", "queued", "slurm"])
def test_a_dry_run_prints_the_script_and_does_nothing(target, cloud, capsys, monkeypatch):
    monkeypatch.setenv("PATH", str(cloud.folder))
    words = ["run", "dense_topk_hash/top2", "--workdir=/mnt/a b"]
    assert launch.main([target, "--dry-run", "--", *words]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "# the file that the command names:" and lines[1].startswith("#!")
    assert lines[-1] in ("bash job", "sbatch job") and not cloud.log.exists()
