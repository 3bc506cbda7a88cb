"""Recipes of other machines, run where gcloud, kubectl, docker, srun and scontrol are stand-ins."""

import json
import shlex
import subprocess
import tarfile
import time

import pytest

from launch.cloud_tpu import QueuedTpu, TpuVm
from launch.kubernetes import ClusterToolkit, Gke
from launch.slurm import Slurm
from launch.targets import ROOT

WORDS = ["run", "dense_topk_hash/top2", "--workdir=/mnt/bucket/a b", "--mesh=data:4,expert:4"]
JOINED = ["-m", "experiments", *WORDS, "--coordinator=auto"]
PLACE = {"cluster": "c", "location": "us-east5", "image": "reg/moe:1"}


def verbs(asked):
    """What was asked for, without what only looks."""
    named = ("create", "delete", "start", "scp", "ssh", "apply", "submit", "build", "push")
    return [next(w for w in line if w in named) for line in asked if set(line) & set(named)]


@pytest.mark.parametrize(
    ("state", "want"),
    [
        ("", ["create", "scp", "ssh"]),
        ("READY", ["scp", "ssh"]),
        ("PREEMPTED", ["delete", "create", "scp", "ssh"]),
        ("STOPPED", ["start", "scp", "ssh"]),
    ],
)
def test_a_tpu_vm_is_made_where_there_is_none(cloud, state, want):
    cloud.states("gcloud", "describe", state)
    code, said, asked = cloud.runs(TpuVm(name="t", zone="z", spot=True), WORDS)
    assert code == 0 and verbs(asked) == want, said
    assert all(line[-1] == "--zone=z" or "scp" in line for line in asked)
    if "create" in want:
        (line,) = [line for line in asked if "create" in line]
        assert line[3:-1] == [
            "tpu-vm", "create", "t", "--accelerator-type=v5litepod-16",
            "--version=v2-alpha-tpuv5-lite", "--spot",
        ]  # fmt: skip


@pytest.mark.parametrize(
    ("states", "want", "ends"),
    [
        # Absent; then asked for, until it is there.
        (("", "", "WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE"), ["create", "scp", "ssh"], 0),
        (("ACTIVE",), ["scp", "ssh"], 0),
        # One that failed before is made anew; one that fails while it waits ends the recipe.
        (("FAILED", "", "ACCEPTED", "ACTIVE"), ["delete", "create", "scp", "ssh"], 0),
        (("", "", "ACCEPTED", "FAILED"), ["create"], 1),
        (("", "", "ACCEPTED", "SUSPENDED"), ["create"], 1),
        (("",), ["create"], 1),  # never to be seen
    ],
)
def test_a_queued_request_is_waited_for_until_it_fails(cloud, states, want, ends):
    cloud.states("gcloud", "describe", *states)
    code, said, asked = cloud.runs(QueuedTpu(name="t", accelerator="v6e-64"), WORDS)
    assert (code, verbs(asked)) == (ends, want), said
    assert ("error: the request t is " in said) == (ends == 1)
    if "create" in want:
        (line,) = [line for line in asked if "create" in line]
        assert {"--node-id=t", "--runtime-version=v2-alpha-tpuv6e"} < set(line)


def test_tracked_files_travel_as_they_are_and_what_runs_stays_behind(cloud):
    # What scp is given is unpacked where the host would; ssh runs its command there.
    host = cloud.folder / "host"
    host.mkdir()
    cloud.answers(
        "gcloud",
        f'case "$*" in *" scp "*) cp "$6" {host}/t.tar.gz ;; *worker=all*) for word; do\n'
        f'case "$word" in --command=*) cd {host} && bash -c "${{word#--command=}}" ;; esac\n'
        "done ;; esac",
    )
    uv = 'case "$*" in "-m uv venv"*) mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;\n'
    again = '*launch.again*) echo "$@" > started; exec -a launch.again /bin/sleep 60 ;; esac'
    cloud.answers("python3", uv + again)
    code, said, _ = cloud.runs(TpuVm(name="t"), WORDS)
    assert code == 0 and "started: moe/run.log" in said, said
    names = set(tarfile.open(host / "t.tar.gz").getnames())
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout
    files = {name for name in names if not (host / "moe" / name).is_dir()}
    assert files == {name for name in tracked.splitlines() if (ROOT / name).exists()} | {"COMMIT"}
    describe = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    commit = subprocess.run(describe, cwd=ROOT, capture_output=True, text=True).stdout
    assert (host / "moe/COMMIT").read_text() == commit
    deadline = time.monotonic() + 30
    while "python3 -m launch.again" not in (asked := cloud.log.read_text()):
        assert time.monotonic() < deadline, asked
        time.sleep(0.05)
    pins = "-c constraints/py312.txt -r requirements.txt -r requirements-tpu.txt"
    assert f"pip install --quiet {pins} -r requirements-gs.txt" in asked
    started = [line for line in asked.splitlines() if "python3 -m launch.again" in line]
    own = ["--crashes=3", "--", ".venv/bin/python", *JOINED]
    assert [shlex.split(line)[3:] for line in started] == [own]
    pid = int((host / "moe/moe.pid").read_text())
    try:
        code, said, _ = cloud.runs(TpuVm(name="t"), WORDS)
        assert code == 0 and "runs already: moe/run.log" in said and "launch.again" not in said
    finally:
        subprocess.run(["kill", str(pid)], check=True)  # it outlived the script


def manifest(asked_file):
    """The JobSet in a script."""
    return json.loads(asked_file.partition("<<'JOBSET'\n")[2].partition("\nJOBSET\n")[0])


def test_a_jobset_has_a_pod_a_host_and_restarts_what_was_stopped():
    target = Gke(**PLACE, topology="4x8")
    target.check()
    found = manifest(target.file(WORDS))
    assert found["kind"] == "JobSet" and found["apiVersion"] == "jobset.x-k8s.io/v1alpha2"
    apart = "alpha.jobset.sigs.k8s.io/exclusive-topology"
    assert found["metadata"]["annotations"] == {apart: "cloud.google.com/gke-nodepool"}
    policy = found["spec"]["failurePolicy"]
    assert policy["maxRestarts"] == 3  # a crash fails its job, which starts all pods again
    mistake = {"action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}
    assert policy["rules"] == [mistake]
    job = found["spec"]["replicatedJobs"][0]["template"]["spec"]
    assert job["parallelism"] == job["completions"] == 8  # 32 chips, 4 a host
    stopped, mistaken, taken = job["podFailurePolicy"]["rules"]
    assert (stopped["action"], stopped["onExitCodes"]["values"]) == ("Ignore", [75])
    assert (mistaken["action"], mistaken["onExitCodes"]["values"]) == ("FailJob", [2])
    assert taken["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    assert taken["action"] == "Ignore" and job["backoffLimit"] == 0
    pod = job["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] == 120 and pod["restartPolicy"] == "Never"
    (container,) = pod["containers"]
    assert container["command"] == ["python", *JOINED]
    assert container["resources"]["limits"] == {"google.com/tpu": 4}
    slice_of = {"gke-tpu-accelerator": "tpu-v5-lite-podslice", "gke-tpu-topology": "4x8"}
    assert pod["nodeSelector"] == {f"cloud.google.com/{k}": v for k, v in slice_of.items()}


@pytest.mark.parametrize(
    ("target", "submits"),
    [
        (Gke(**PLACE, topology="4x4"), "apply"),
        (ClusterToolkit(**PLACE, compute_type="v6e-16"), "submit"),
    ],
)
@pytest.mark.parametrize(
    ("looks", "want"),  # whether there is one, and how it ended
    [
        (("exit 1", ""), ["build", "push"]),
        (("echo", "Completed"), ["delete", "build", "push"]),
        (("echo", "Failed"), ["delete", "build", "push"]),
        (("echo", ""), None),  # it runs
    ],
)
def test_a_job_that_ended_makes_room_and_one_that_runs_is_left_alone(
    cloud, target, submits, looks, want
):
    there, state = looks
    ask = f'case "$*" in *jsonpath*) echo {state} ;; *"get jobset"*) {there} ;; esac'
    cloud.answers("kubectl", ask)
    code, said, asked = cloud.runs(target, WORDS)
    assert code == 0, said
    assert asked[0] == [*"gcloud container clusters get-credentials c --location=us-east5".split()]
    assert verbs(asked) == ([] if want is None else [*want, submits]), said
    assert ("runs already" in said) == (want is None)


def test_the_cluster_toolkit_restarts_what_was_stopped(cloud):
    cloud.answers("kubectl", "exit 1")
    target = ClusterToolkit(**PLACE, compute_type="v6e-16", build=False, grace=90)
    line = cloud.runs(target, WORDS)[2][-1]
    assert line == [
        "gcluster", "job", "submit", "--name=moe", "--cluster=c", "--location=us-east5",
        "--image=reg/moe:1", "--compute-type=v6e-16", "--grace-period=90s", "--restarts=10",
        "--restart-on-exit-codes=75,1,134,135,136,137,139,143",
        f"--command={shlex.join(['python', *JOINED])}",
    ]  # fmt: skip


def test_the_dockerfile_takes_pins_and_extras():
    text = (ROOT / "launch/Dockerfile").read_text()
    assert "-c constraints/py312.txt -r requirements.txt" in text and "python:3.12" in text
    assert 'ARG WITH="tpu gs"' in text and "WORKDIR /moe" in text


def test_slurm(cloud):
    target = Slurm(nodes=4, gpus=2, partition="p", python="/clone/.venv/bin/python")
    options = {line[8:] for line in target.file(WORDS).splitlines() if line.startswith("#SBATCH")}
    assert {"--nodes=4", "--ntasks-per-node=2", "--gpus-per-node=2", "--partition=p"} < options
    # In the clone, with its Python, one at a time, told in time.
    assert {f"--chdir={ROOT}", "--dependency=singleton", "--signal=TERM@120"} < options
    _, _, asked = cloud.runs(target, WORDS)
    assert asked == [["srun", "--kill-on-bad-exit=0", "/clone/.venv/bin/python", *JOINED]]


@pytest.mark.parametrize(
    ("code", "times", "requeued"),
    [(75, 5, 5), (0, 2, 0), (2, 2, 0), (1, 5, 3), (137, 5, 3)],
)
def test_slurm_queues_again_what_was_stopped_and_three_crashes(cloud, code, times, requeued):
    cloud.answers("srun", f"exit {code}")
    asked = []
    for _ in range(times):
        done, _, lines = cloud.runs(Slurm(), WORDS)
        assert done == code
        asked += [line for line in lines if line[0] == "scontrol"]
    assert asked == [["scontrol", "requeue", "7"]] * requeued
