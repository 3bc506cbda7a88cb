"""Google Kubernetes Engine: a JobSet of a pod a host, by kubectl or by Google's Cluster Toolkit."""

import dataclasses
import json
import math
import re
import shlex
from typing import ClassVar

from launch.targets import FILE, HEAD, MISTAKE, STOPPED, Target, copied

CRASHED = (1, 134, 135, 136, 137, 139, 143)  # exit codes of a bug and of signals
APART = "alpha.jobset.sigs.k8s.io/exclusive-topology"  # a slice holds one job, a job one slice


@dataclasses.dataclass(frozen=True)
class Kubernetes(Target):
    """What both ways share: the cluster, the image, and that a job which ended makes room."""

    required: ClassVar[tuple[str, ...]] = ("cluster", "location", "image")
    least: ClassVar[dict[str, int]] = {"crashes": 0}
    python: str = "python"
    name: str = "moe"
    cluster: str = ""
    location: str = ""
    project: str = ""  # that of gcloud's own configuration
    image: str = ""
    build: bool = True  # make the image from the tracked files, and push it
    crashes: int = 3
    grace: int = 120  # seconds from SIGTERM on in which a run saves

    def submit(self, words) -> str:
        """The line of the script that submits the job."""
        raise NotImplementedError

    def file(self, words):
        """A script: credentials, the image, and the job unless it runs already."""
        place = [f"--location={self.location}", *self.in_project()]
        login = shlex.join(
            ["gcloud", "container", "clusters", "get-credentials", self.cluster, *place]
        )
        image, name = shlex.quote(self.image), self.name
        build = f"""\
{copied("$folder/context.tar.gz")}\
docker build --file=launch/Dockerfile --tag={image} - < "$folder/context.tar.gz"
docker push {image}
"""
        return f"""\
{HEAD}{login}
if kubectl get jobset {name} > /dev/null 2>&1; then
    case "$(kubectl get jobset {name} --output='jsonpath={{.status.terminalState}}')" in
        Completed|Failed) kubectl delete jobset {name} --wait ;;
        *) echo "{name} runs already; kubectl delete jobset {name} ends it"; exit 0 ;;
    esac
fi
{build if self.build else ""}{self.submit(words)}
"""

    def commands(self, words):
        """Runs the script."""
        return [["bash", FILE]]

    def in_project(self) -> list[str]:
        """The flag that names the project, where one is named."""
        return [f"--project={self.project}"] * bool(self.project)


@dataclasses.dataclass(frozen=True)
class Gke(Kubernetes):
    """A pod that the system stopped comes again, as often as that happens.

    A crash starts all pods again, `crashes` times at most; a mistake ends the job.
    """

    summary: ClassVar[str] = "Google Kubernetes Engine: a JobSet manifest and kubectl"
    required: ClassVar[tuple[str, ...]] = ("cluster", "location", "image", "topology")
    accelerator: str = "tpu-v5-lite-podslice"
    topology: str = ""
    chips_per_host: int = 4

    def check(self):
        """Hosts divide the slice."""
        super().check()
        if not re.fullmatch(r"[1-9][0-9]{0,3}(x[1-9][0-9]{0,3}){1,2}", self.topology):
            raise ValueError(f"--topology={self.topology}: must be sides of a slice, as in 4x4")
        if self.chips % self.chips_per_host:
            raise ValueError(
                f"--chips_per_host={self.chips_per_host}: must divide the {self.chips} chips of "
                f"--topology={self.topology}"
            )

    @property
    def chips(self) -> int:
        """Of the slice."""
        return math.prod(int(side) for side in self.topology.split("x"))

    def manifest(self, words) -> dict:
        """The JobSet."""
        container = {
            "name": "train",
            "image": self.image,
            "imagePullPolicy": "Always",  # its name stays when it is made anew
            "command": self.joined(words),
            "resources": {"limits": {"google.com/tpu": self.chips_per_host}},
        }
        pod = {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": self.grace,
            "nodeSelector": {
                "cloud.google.com/gke-tpu-accelerator": self.accelerator,
                "cloud.google.com/gke-tpu-topology": self.topology,
            },
            "containers": [container],
        }
        hosts = self.chips // self.chips_per_host

        def ended_with(code, action):
            codes = {"containerName": "train", "operator": "In", "values": [code]}
            return {"action": action, "onExitCodes": codes}

        taken = {"type": "DisruptionTarget", "status": "True"}  # from the pod, by the system
        job = {
            "parallelism": hosts,
            "completions": hosts,
            "completionMode": "Indexed",
            "backoffLimit": 0,
            "podFailurePolicy": {
                "rules": [
                    ended_with(STOPPED, "Ignore"),
                    ended_with(MISTAKE, "FailJob"),
                    {"action": "Ignore", "onPodConditions": [taken]},
                ]
            },
            "template": {"spec": pod},
        }
        mistake = {"action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}
        return {
            "apiVersion": "jobset.x-k8s.io/v1alpha2",
            "kind": "JobSet",
            "metadata": {
                "name": self.name,
                "annotations": {APART: "cloud.google.com/gke-nodepool"},
            },
            "spec": {
                "failurePolicy": {"maxRestarts": self.crashes, "rules": [mistake]},
                "replicatedJobs": [
                    {"name": "workers", "replicas": 1, "template": {"spec": job}},
                ],
            },
        }

    def submit(self, words):
        """Applies the manifest, which is JSON."""
        manifest = json.dumps(self.manifest(words), indent=2)
        return f"kubectl apply --filename=- <<'JOBSET'\n{manifest}\nJOBSET"


@dataclasses.dataclass(frozen=True)
class ClusterToolkit(Kubernetes):
    """Google's Cluster Toolkit, which took the place of xpk; it makes the JobSet.

    All restarts count there, those after the system stopped a run too.
    """

    summary: ClassVar[str] = "Google Cluster Toolkit: gcluster job submit"
    required: ClassVar[tuple[str, ...]] = ("cluster", "location", "image", "compute_type")
    compute_type: str = ""
    crashes: int = 10

    def submit(self, words):
        """Submits the job."""
        ask = [f"--name={self.name}", f"--cluster={self.cluster}", f"--location={self.location}"]
        ask += [*self.in_project(), f"--image={self.image}", f"--compute-type={self.compute_type}"]
        ask += [f"--grace-period={self.grace}s", f"--restarts={self.crashes}"]
        ask.append(f"--restart-on-exit-codes={','.join(map(str, (STOPPED, *CRASHED)))}")
        command = f"--command={shlex.join(self.joined(words))}"
        return shlex.join(["gcluster", "job", "submit", *ask, command])
