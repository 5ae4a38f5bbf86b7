"""Starts a run on GKE as a JobSet, on TPU slices or on GPU nodes.

  python launch/gke.py --name=NAME --image=IMAGE --accelerator=tpu-v5-lite-podslice \\
    --topology=4x8 --hosts=8 [--dry_run] -- [command] --config=FILE --workdir=gs://...

  python launch/gke.py --name=NAME --image=IMAGE --accelerator=nvidia-h100-80gb \\
    --hosts=2 [--dry_run] -- [command] --config=FILE --workdir=gs://...

There is one pod per host. After a failure all pods are started again and continue,
unless the input was wrong (status 2). With `--dry_run` the manifest is printed instead
of being applied with kubectl.
"""

import subprocess
import sys

import yaml
from absl import app, flags

TPU_CHIPS = 4  # chips per host of a multi-host slice
GRACE = 300  # seconds after SIGTERM in which a run can save

_NAME = flags.DEFINE_string("name", None, "Name of the JobSet.", required=True)
_IMAGE = flags.DEFINE_string(
  "image", None, "A container image with the package installed.", required=True
)
_ACCELERATOR = flags.DEFINE_string(
  "accelerator", None, "The node pool's gke-tpu-accelerator or gke-accelerator.",
  required=True,
)  # fmt: skip
_TOPOLOGY = flags.DEFINE_string(
  "topology", None, "Topology of a TPU slice, such as 4x8."
)
_HOSTS = flags.DEFINE_integer("hosts", 1, "Hosts of a TPU slice, or GPU nodes.", 1)
_DEVICES = flags.DEFINE_integer(
  "devices", None, "TPU chips (default 4) or GPUs (default 8) per host.", 1
)
_RESTARTS = flags.DEFINE_integer(
  "restarts", 10, "Restarts of all pods after failures.", 0
)
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Print the manifest.")


def make_manifest(
  name: str,
  image: str,
  accelerator: str,
  arguments: list[str],
  hosts: int = 1,
  topology: str | None = None,
  devices: int | None = None,
  restarts: int = 10,
) -> list[dict]:
  """Make the Kubernetes objects of a run.

  Args:
    name: Name of the JobSet, and of the service account of its GPU pods.
    image: Container image with the package installed.
    accelerator: Label of the node pool; that of TPUs begins with "tpu".
    arguments: Arguments of `mllm-selector`.
    hosts: Number of hosts, each of which runs one pod.
    topology: Topology of the TPU slice; None for GPUs.
    devices: TPU chips or GPUs per host; None for 4 chips or 8 GPUs.
    restarts: How often all pods are started again after a failure.

  Raises:
    ValueError: A TPU slice has no topology, or GPUs have one.
  """
  tpu = accelerator.startswith("tpu")
  if tpu != (topology is not None):
    raise ValueError(
      f"--accelerator={accelerator} --topology={topology}: a TPU slice needs a"
      " topology, GPU nodes have none."
    )
  devices = devices or (TPU_CHIPS if tpu else 8)
  kind = "tpu" if tpu else "gpu"
  resource = {"tpu": "google.com/tpu", "gpu": "nvidia.com/gpu"}[kind]
  container = {
    "name": "main",
    "image": image,
    "command": ["mllm-selector", *arguments],
    "resources": {"limits": {resource: devices}},
  }
  container["command"] += [f"--num_devices={devices * hosts}"]
  if hosts > 1:
    container["command"] += ["--coordinator=auto"]
  pod = {
    "restartPolicy": "Never",
    "terminationGracePeriodSeconds": GRACE,
    "nodeSelector": {
      f"cloud.google.com/gke-{'tpu-' if tpu else ''}accelerator": accelerator
    },
    "containers": [container],
  }
  if tpu:
    pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"] = topology
    container["ports"] = [{"containerPort": 8471}, {"containerPort": 8431}]
  else:
    pod["serviceAccountName"] = name
    container["env"] = [
      {"name": "JAX_OPTIMIZATION_LEVEL", "value": "O1"},
      {"name": "NCCL_NVLS_ENABLE", "value": "1"},
      {"name": "XLA_PYTHON_CLIENT_MEM_FRACTION", "value": "0.9"},
    ]
    pod["volumes"] = [{"name": "shm", "emptyDir": {"medium": "Memory"}}]
    container["volumeMounts"] = [{"name": "shm", "mountPath": "/dev/shm"}]
  job = {
    "parallelism": hosts,
    "completions": hosts,
    "completionMode": "Indexed",
    "backoffLimit": 0,
    "podFailurePolicy": {
      "rules": [
        {
          "action": "FailJob",
          "onExitCodes": {
            "containerName": "main",
            "operator": "In",
            "values": [2],
          },
        }
      ]
    },
    "template": {"spec": pod},
  }
  jobset = {
    "apiVersion": "jobset.x-k8s.io/v1alpha2",
    "kind": "JobSet",
    "metadata": {
      "name": name,
      "annotations": {
        "alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"
      },
    },
    "spec": {
      "failurePolicy": {
        "maxRestarts": restarts,
        "rules": [
          {
            "name": "wronginput",
            "action": "FailJobSet",
            "onJobFailureReasons": ["PodFailurePolicy"],
          }
        ],
      },
      "replicatedJobs": [{"name": "run", "replicas": 1, "template": {"spec": job}}],
    },
  }
  if not tpu:
    del jobset["metadata"]["annotations"]
  return [jobset] if tpu else [*_make_rights(name), jobset]


def _make_rights(name: str) -> list[dict]:
  """Make the service account of GPU pods, and the rights it needs to find others."""
  group = "rbac.authorization.k8s.io"
  return [
    {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}},
    {
      "apiVersion": f"{group}/v1",
      "kind": "Role",
      "metadata": {"name": name},
      "rules": [
        {
          "apiGroups": [""],
          "resources": ["pods", "services"],
          "verbs": ["get", "list"],
        },
        {"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["get", "list"]},
      ],
    },
    {
      "apiVersion": f"{group}/v1",
      "kind": "RoleBinding",
      "metadata": {"name": name},
      "subjects": [{"kind": "ServiceAccount", "name": name}],
      "roleRef": {"apiGroup": group, "kind": "Role", "name": name},
    },
  ]


def main(argv: list[str]) -> None:
  try:
    manifest = make_manifest(
      _NAME.value,
      _IMAGE.value,
      _ACCELERATOR.value,
      argv[1:],
      _HOSTS.value,
      _TOPOLOGY.value,
      _DEVICES.value,
      _RESTARTS.value,
    )
  except ValueError as error:
    sys.exit(f"Error: {error}")
  text = yaml.safe_dump_all(manifest, sort_keys=False)
  if _DRY_RUN.value:
    print(text, end="")
  else:
    sys.exit(
      subprocess.run(["kubectl", "apply", "-f", "-"], input=text, text=True).returncode
    )


if __name__ == "__main__":
  app.run(main)
