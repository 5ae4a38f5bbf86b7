"""The launchers: what they would run, and the local one run for real."""

import json
import os
import pathlib
import shlex
import stat
import subprocess
import sys
from importlib import metadata

import jsonschema
import kubernetes_validate
import pyarrow.parquet as pq
import pytest
import yaml

from mllm_selector_jax.stages import COMMANDS
from tests import small_run
from tests.models import tiny
from tests.real_processes import write_config

ROOT = pathlib.Path(__file__).parents[2]
LAUNCH = ROOT / "launch"
ARGUMENTS = ["score", "--config=demo", "--workdir=gs://b/it's $HOME"]


def call(*command, **environment):
  return subprocess.run(
    [str(part) for part in command],
    capture_output=True,
    text=True,
    env={**os.environ, **environment},
  )


def dry_run(*command):
  done = call(*command)
  assert done.returncode == 0, done.stderr
  return done.stdout


def test_scripts_are_sound():
  shellcheck = pathlib.Path(sys.executable).with_name("shellcheck")
  done = call(shellcheck, *LAUNCH.glob("*.sh"), ROOT / ".ci" / "run")
  assert done.returncode == 0, done.stdout


def test_a_tpu_slice_gets_the_command_on_every_host():
  said = dry_run(LAUNCH / "tpu_vm.sh", "--dry_run", "pod", "us-east5-a", *ARGUMENTS)
  command = shlex.split(said)
  assert command[:6] == "gcloud compute tpus tpu-vm ssh pod".split()
  assert {"--zone=us-east5-a", "--worker=all"} <= set(command)
  (remote,) = (part for part in command if part.startswith("--command="))
  ran = shlex.split(remote.removeprefix("--command=").partition("exec ")[2])
  assert ran == [".venv/bin/mllm-selector", *ARGUMENTS, "--coordinator=auto"]


# Runs what `gcloud compute tpus tpu-vm ssh --worker=all` is given in one shell for each
# host, in its home folder. The hosts name each other by SLURM's variables, since there
# is no TPU slice whose own could be asked.
GCLOUD = """#!/bin/bash
[[ "$*" == "compute tpus tpu-vm ssh pod --zone=z --worker=all --command="* ]] || exit 64
for host in 0 1; do
  (cd "$HOSTS/$host" && HOME=$PWD SLURM_JOB_ID=$JOB SLURM_STEP_NODELIST=127.0.0.1 \\
    SLURM_NTASKS=2 SLURM_PROCID=$host SLURM_LOCALID=0 bash -c "${8#--command=}") &
  shells+=($!)
done
for shell in "${shells[@]}"; do wait "$shell" || status=$?; done
exit "${status:-0}"
"""


def test_what_gcloud_is_given_runs_on_every_host(tmp_path):
  programs = {tmp_path / "bin/gcloud": GCLOUD}
  for host in ("0", "1"):
    place = tmp_path / "hosts" / host / "mllm_selector_jax/.venv/bin"
    programs[place / "mllm-selector"] = (
      f'#!/bin/sh\nexec {sys.executable} -m mllm_selector_jax.main "$@"\n'
    )
  for path, text in programs.items():
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
  base = tiny.make_base(tmp_path / "base")
  config = write_config(tmp_path / "config.py", base)
  work = tmp_path / "it's $HOME, and more"
  arguments = ["check", f"--config={config}", f"--workdir={work}"]
  environment = {
    "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
    "PYTHONPATH": str(ROOT),
    "HOSTS": str(tmp_path / "hosts"),
    "JOB": str(os.getpid() % 4096),  # jax takes the port from it
    "JAX_NUM_CPU_DEVICES": "1",
    "XLA_FLAGS": "",
  }
  command = [LAUNCH / "tpu_vm.sh", "pod", "z", *arguments]
  done = call(*command, "--num_devices=2", **environment)
  assert done.returncode == 0, done.stderr
  assert json.loads((work / "pool_summary.json").read_text())["rows"] == 120
  done = call(*command, "--num_devices=3", **environment)
  assert done.returncode == 2 and done.stderr.count("2 were found") == 2


def test_slurm_gets_one_task_a_gpu():
  said = dry_run(LAUNCH / "slurm.sh", "--dry_run", *ARGUMENTS)
  *options, command = said.splitlines()
  assert {"--signal=TERM@300", "--requeue", "--ntasks-per-node=8"} <= set(options)
  assert shlex.split(command) == [
    *("srun", "--kill-on-bad-exit=0", "--wait=90"),
    "mllm-selector",
    *ARGUMENTS,
    "--coordinator=auto",
    "--num_devices=8",
  ]


@pytest.mark.parametrize(
  ("status", "restarts", "again"),
  [
    *((143, 0, True), (143, 99, True), (0, 0, False), (2, 0, False)),
    *((137, 0, True), (1, 2, True), (1, 3, False)),
  ],
)
def test_a_slurm_job_that_can_go_on_is_queued_again(tmp_path, status, restarts, again):
  for name, line in (
    ("srun", f"exit {status}"),
    ("scontrol", f'echo "$@" > {tmp_path}/asked'),
  ):
    path = tmp_path / name
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
  done = call(
    LAUNCH / "slurm.sh",
    *ARGUMENTS,
    PATH=f"{tmp_path}:{os.environ['PATH']}",
    SLURM_JOB_ID="77",
    SLURM_RESTART_COUNT=str(restarts),
    RESTARTS="3",
  )
  assert done.returncode == status
  assert (tmp_path / "asked").exists() == again
  if again:
    assert (tmp_path / "asked").read_text() == "requeue 77\n"


def test_a_slurm_job_uses_the_environment_container_and_copy_that_it_is_given(tmp_path):
  ran = tmp_path / "ran"
  programs = {
    # Options of srun begin with two dashes; the rest is run, on this one node.
    "srun": f'while [[ "$1" == --* ]]; do shift; done; echo "$@" >> {ran}; "$@"',
    "apptainer": 'shift 3; "$@"',
    "mllm-selector": f'echo "$VIRTUAL_ENV" >> {ran}',
  }
  for name, line in programs.items():
    (tmp_path / name).write_text(f"#!/bin/bash\n{line}\n")
    (tmp_path / name).chmod(0o755)
  (tmp_path / "env/bin").mkdir(parents=True)
  (tmp_path / "env/bin/activate").write_text(f"export VIRTUAL_ENV={tmp_path}/env\n")
  (tmp_path / "base").mkdir()
  (tmp_path / "base/config.json").write_text("{}")
  near = tmp_path / "node disk/base"
  for _ in range(2):  # the copy is made once
    done = call(
      LAUNCH / "slurm.sh",
      *ARGUMENTS,
      PATH=f"{tmp_path}:{os.environ['PATH']}",
      VENV=f"{tmp_path}/env",
      CONTAINER="image.sif",
      STAGE=f"{tmp_path}/base:{near}",
    )
    assert done.returncode == 0, done.stderr
    assert [path.name for path in near.iterdir()] == ["config.json"]
    (tmp_path / "base/later").write_text("")
  said = ran.read_text().splitlines()
  assert sum(line.startswith("apptainer exec --nv image.sif mllm-sel") for line in said)
  assert said[-1] == f"{tmp_path}/env"
  assert not near.with_name("base.part").exists()


def test_the_image_installs_extras_that_there_are():
  lines = (LAUNCH / "Dockerfile").read_text().splitlines()
  (default,) = (x.removeprefix("ARG EXTRAS=") for x in lines if x.startswith("ARG "))
  (other,) = (x.partition("EXTRAS=")[2].split()[0] for x in lines if "-arg" in x)
  known = metadata.metadata("mllm_selector_jax").get_all("Provides-Extra")
  assert {*default.split(","), *other.split(",")} <= set(known)


@pytest.mark.parametrize(
  ("flags", "resource", "devices"),
  [
    (
      ["--accelerator=tpu-v5-lite-podslice", "--topology=4x8", "--hosts=8"],
      "google.com/tpu",
      32,
    ),
    (["--accelerator=nvidia-h100-80gb", "--hosts=2"], "nvidia.com/gpu", 16),
  ],
)
def test_a_jobset_is_what_kubernetes_takes(flags, resource, devices):
  said = dry_run(
    *(sys.executable, LAUNCH / "gke.py", "--name=mine", "--image=i", "--dry_run"),
    *(*flags, "--", *ARGUMENTS),
  )
  *rights, jobset = yaml.safe_load_all(said)
  (replicated,) = jobset["spec"]["replicatedJobs"]
  job = {
    "apiVersion": "batch/v1",
    "kind": "Job",
    "metadata": {"name": "mine"},
    **replicated["template"],
  }
  for part in (*rights, job):
    for version in ("1.31", "1.37"):
      kubernetes_validate.validate(part, version, strict=True)
  # Only that JobSet's own parts are as its CRD wants them; the job's are above.
  schema = json.loads(
    pathlib.Path(__file__).with_name("jobset_schema.json").read_text()
  )
  jsonschema.validate(jobset, schema)
  jobset["spec"]["failurePolicy"]["maxRestart"] = 3
  with pytest.raises(jsonschema.ValidationError, match="'maxRestart' was unexpected"):
    jsonschema.validate(jobset, schema)
  (container,) = job["spec"]["template"]["spec"]["containers"]
  assert container["command"][:4] == ["mllm-selector", *ARGUMENTS]
  assert "--coordinator=auto" in container["command"]
  assert f"--num_devices={devices}" in container["command"]
  hosts = job["spec"]["completions"]
  assert container["resources"]["limits"][resource] * hosts == devices
  assert jobset["spec"]["failurePolicy"]["maxRestarts"] == 10
  assert len(rights) == (3 if resource.startswith("nvidia") else 0)


def test_a_jobset_without_a_topology_is_refused():
  done = call(
    *(sys.executable, LAUNCH / "gke.py", "--name=a", "--image=i", "--dry_run"),
    *("--accelerator=tpu-v5p-slice", "--", *ARGUMENTS),
  )
  assert done.returncode == 1 and "needs a topology" in done.stderr


@pytest.mark.parametrize("script", ["tpu_vm.sh", "slurm.sh"])
def test_a_launcher_without_arguments_says_how_it_is_called(script):
  done = call(LAUNCH / script)
  assert done.returncode == 2 and f"launch/{script}" in done.stderr


def test_two_local_processes_run_for_real(tmp_path):
  base = tiny.make_base(tmp_path / "base")
  folder = tmp_path / "work"
  with small_run.open_run(folder, base) as current:
    COMMANDS["check"](current)
  config = write_config(tmp_path / "config.py", base, **{"score.model": str(base)})
  arguments = [f"--config={config}", f"--workdir={folder}"]
  local = [sys.executable, LAUNCH / "local.py", "--processes=2"]
  done = call(
    *local, "--", "score", *arguments, "--num_devices=2", PYTHONPATH=str(ROOT)
  )
  assert done.returncode == 0, done.stderr
  status = pq.read_table(folder / "pool.parquet", columns=["status"])["status"]
  scored = sum(pq.read_table(p).num_rows for p in (folder / "scores").glob("*.parquet"))
  assert scored == status.to_pylist().count("ok") > 0


@pytest.mark.parametrize(
  ("flag", "words"),
  [
    ("--coordinator=auto", "no TPU slice, SLURM job or Kubernetes job was found"),
    ("--num_devices=3", "were found"),
  ],
)
def test_what_a_launcher_relies_on_is_checked(tmp_path, flag, words):
  command = [sys.executable, LAUNCH / "local.py", "--", "check", "--config=demo"]
  done = call(*command, f"--workdir={tmp_path}", flag, PYTHONPATH=str(ROOT))
  assert done.returncode == 2 and words in done.stderr
  assert "Traceback" not in done.stderr


def test_one_local_process_keeps_what_is_set():
  command = [sys.executable, LAUNCH / "local.py", "--dry_run", "--", *ARGUMENTS]
  done = call(*command, NCCL_NVLS_ENABLE="0")
  said = shlex.split(done.stdout)
  assert "XLA_PYTHON_CLIENT_MEM_FRACTION=0.9" in said
  assert not any(part.startswith("NCCL") for part in said)
  assert said[-3:] == ARGUMENTS
