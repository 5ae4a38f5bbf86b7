#!/usr/bin/env bash
# Starts SLURM on this machine alone, to try launch/slurm.sh where there is no cluster.
#
#   launch/slurm_node.sh start DIR     prints the SLURM_CONF to set for sbatch and squeue
#   launch/slurm_node.sh stop DIR
#
# Needs the programs of SLURM and MUNGE (Debian: apt-get install slurmctld slurmd
# slurm-client munge), but neither root nor systemd: the daemons run as the user, keep
# their files in DIR and listen at free ports. The node claims to have 8 CPUs.
set -euo pipefail

if (($# != 2)) || [[ "$1" != start && "$1" != stop ]]; then
  sed -n '4,5s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
mkdir -p "$2"
folder=$(cd "$2" && pwd)
PATH=$PATH:/usr/sbin:/sbin
export SLURM_CONF="$folder/slurm.conf"
if [[ "$1" == stop ]]; then
  scancel --user="$(id -un)" 2>/dev/null || true
  for daemon in slurmd slurmctld munged; do
    if [[ -s "$folder/$daemon.pid" ]]; then
      pid=$(<"$folder/$daemon.pid")
      kill "$pid" 2>/dev/null || true
      # slurmd ends with its last job.
      timeout 60 tail --pid="$pid" -f /dev/null || true
    fi
  done
  exit 0
fi
for program in munged slurmctld slurmd sbatch; do
  if ! command -v "$program" >/dev/null; then
    echo "$program was not found: apt-get install slurmctld slurmd slurm-client munge" >&2
    exit 2
  fi
done

free_port() {
  python3 -c 'import socket; s = socket.socket(); s.bind(("", 0)); print(s.getsockname()[1])'
}

chmod 700 "$folder"
mkdir -p "$folder/state" "$folder/spool"
if [[ ! -s "$folder/munge.key" ]]; then
  (umask 077 && dd if=/dev/urandom of="$folder/munge.key" bs=128 count=1 status=none)
fi
user=$(id -un)
node=$(hostname -s)
cat >"$folder/slurm.conf" <<END
ClusterName=one
# jax takes the port at which a job's processes meet from the job's number.
FirstJobId=$((RANDOM % 4000 + 1))
SlurmctldHost=$node(127.0.0.1)
SlurmctldPort=$(free_port)
SlurmdPort=$(free_port)
SlurmUser=$user
SlurmdUser=$user
AuthType=auth/munge
# A job that is queued again waits until its credential has expired: 120 s by default.
AuthInfo=socket=$folder/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=1,bf_interval=1
# The times of the rehearsal are seconds where those of a cluster are minutes.
OverTimeLimit=0
KillWait=30
MinJobAge=600
ReturnToService=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName=$node NodeAddr=127.0.0.1 CPUs=8 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=30
PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=2 PreemptMode=OFF
END
munged --force --key-file="$folder/munge.key" --socket="$folder/munge.socket" \
  --pid-file="$folder/munged.pid" --log-file="$folder/munged.log" \
  --seed-file="$folder/munge.seed"
slurmctld -i
slurmd
for _ in $(seq 100); do
  if sinfo --noheader --format=%T 2>/dev/null | grep -q idle; then
    echo "export SLURM_CONF=$folder/slurm.conf"
    exit 0
  fi
  sleep 0.1
done
echo "the node did not come up; see $folder/slurmctld.log and $folder/slurmd.log" >&2
exit 1
