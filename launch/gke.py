"""Starts a run on GKE as a JobSet, on TPU slices or on GPU nodes.

  python launch/gke.py --name=NAME --image=IMAGE --accelerator=tpu-v5-lite-podslice \\
    --topology=4x8 --hosts=8 [--dry_run] -- [command] --config=FILE --workdir=gs://...

  python launch/gke.py --name=NAME --image=IMAGE --accelerator=nvidia-h100-80gb \\
    --hosts=2 [--dry_run] -- [command] --config=FILE --workdir=gs://...

`--dry_run` prints the manifest; without it, it goes to `kubectl apply`. One pod a
host. Any failure ends all pods, and all start again and go on; wrong input (status
2) does not.
"""

import subprocess
import sys

import yaml
from absl import app, flags

TPU_CHIPS = 4  # a host of every multi-host slice
GRACE = 300  # seconds from SIGTERM to the end, in which a run saves

_NAME = flags.DEFINE_string("name", None, "Of the JobSet.", required=True)
_IMAGE = flags.DEFINE_string(
  "image", None, "A container image with the package installed.", required=True
)
_ACCELERATOR = flags.DEFINE_string(
  "accelerator", None, "The node pool's gke-tpu-accelerator or gke-accelerator.",
  required=True,
)  # fmt: skip
_TOPOLOGY = flags.DEFINE_string("topology", None, "Of a TPU slice, as 4x8.")
_HOSTS = flags.DEFINE_integer("hosts", 1, "Of a TPU slice, or GPU nodes.", 1)
_DEVICES = flags.DEFINE_integer(
  "devices", None, "Chips or GPUs of a host: 4 TPU chips, 8 GPUs if not given.", 1
)
_RESTARTS = flags.DEFINE_integer("restarts", 10, "Of all pods after a failure.", 0)
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
  """The Kubernetes objects of a run.

  Args:
    name: of the JobSet, and of the account that its GPU pods run as.
    image: container image with the package installed.
    accelerator: label of the node pool; TPUs begin with "tpu".
    arguments: of `mllm-selector`.
    hosts: pods, each of a whole host.
    topology: of the TPU slice.
    devices: TPU chips or GPUs of a host.
    restarts: of the whole set.

  Raises:
    ValueError: a TPU slice without its topology, or GPUs with one.
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
  """What the pods' account may read, so that the processes find each other."""
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
