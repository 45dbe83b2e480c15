#!/usr/bin/env bash
# A real Slurm on one machine, for tests: the controller here, and two compute nodes, each a slurmd in its own network,
# UTS, mount and PID namespace (own address, host name and /dev/shm; the file system is shared; no way to the internet).
#
#   cluster.sh install          the Debian packages that are missing
#   cluster.sh start            start, and wait until the nodes are idle
#   cluster.sh stop             end every process and remove the bridge; logs stay
#   cluster.sh kill-node NODE   power failure: everything on it dies at once
#   cluster.sh boot-node NODE   bring it back
#
# Needs root. CLUSTER_DIR: where its files lie; its slurm.conf is what sbatch needs as SLURM_CONF.
# CLUSTER_ID (0-255): address range and ports, so that several can run at once.
set -euo pipefail

DIR=${CLUSTER_DIR:-/tmp/srgan-slurm}
ID=${CLUSTER_ID:-77}
NODES=2
CPUS=64 # advertised, not real: jobs share what there is
GPUS=8  # stand-ins: Slurm counts them and sets CUDA_VISIBLE_DEVICES
NET=10.77.$ID
BRIDGE=slurm$ID
WAIT=60
export SLURM_CONF=$DIR/slurm.conf

say() { echo "cluster: $*" >&2; }
die() { say "$*"; exit 1; }
pid_of() { cat "$DIR/run/$1.pid" 2>/dev/null; }
alive() { local pid; pid=$(pid_of "$1") && grep -qs '^State:.[^Z]' "/proc/$pid/status"; } # not even a zombie
node_list() { seq -f 'node%g' "$NODES"; }
node_is_up() { [[ $(sinfo --noheader --nodes="$1" --format=%T 2>/dev/null | head -n 1) =~ ^(idle|mixed|allocated)$ ]]; }

until_ok() { # WHAT COMMAND...
  local what=$1 end=$((SECONDS + WAIT))
  shift
  until "$@" >/dev/null 2>&1; do
    if [ $SECONDS -ge $end ]; then
      tail -n 15 "$DIR"/log/*.log >&2 || true
      die "waited ${WAIT} s for $what"
    fi
    sleep 0.1
  done
}

install() {
  local missing=() pair
  for pair in slurmctld:slurmctld slurmd:slurmd sbatch:slurm-client munged:munge ip:iproute2 unshare:util-linux; do
    command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  say "installing ${missing[*]}"
  apt-get update -q
  DEBIAN_FRONTEND=noninteractive apt-get install -yq --no-install-recommends "${missing[@]}"
}

configure() {
  local n
  [ -s "$DIR/munge.key" ] || (umask 077 && head -c 128 /dev/urandom >"$DIR/munge.key")
  printf '127.0.0.1 localhost\n::1 localhost\n%s.254 %s\n' "$NET" "$(hostname -s)" >"$DIR/hosts"
  for n in $(node_list); do echo "$NET.${n#node} $n" >>"$DIR/hosts"; done
  echo 'nameserver 127.0.0.1' >"$DIR/resolv.conf" # looking up a name fails at once, not after seconds
  for ((n = 0; n < GPUS; n++)); do
    [ -c "$DIR/run/gpu$n" ] || mknod -m 666 "$DIR/run/gpu$n" c 1 3 # slurmd wants a device; one like /dev/null does
  done
  echo 'CgroupAutomount=no' >"$DIR/cgroup.conf"
  echo "Name=gpu File=$DIR/run/gpu[0-$((GPUS - 1))]" >"$DIR/gres.conf"
  cat >"$SLURM_CONF" <<END
ClusterName=tests
SlurmctldHost=$(hostname -s)($NET.254)
SlurmctldPort=$((16000 + ID))
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$DIR/run/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation=$DIR/state
SlurmdSpoolDir=$DIR/spool/%n
SlurmctldPidFile=$DIR/run/slurmctld.daemon.pid
SlurmdPidFile=$DIR/run/%n.daemon.pid
SlurmctldLogFile=$DIR/log/slurmctld.log
SlurmdLogFile=$DIR/log/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0,sched_min_interval=0
SlurmdParameters=config_overrides
SlurmctldParameters=preempt_send_user_signal
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
ReturnToService=2
MinJobAge=3600
KillWait=10
SlurmdTimeout=5
MessageTimeout=5
SlurmctldTimeout=20
InactiveLimit=0
LaunchParameters=enable_nss_slurm
GresTypes=gpu
NodeName=DEFAULT CPUs=$CPUS CoresPerSocket=$CPUS RealMemory=4000 Gres=gpu:$GPUS State=UNKNOWN
END
  for n in $(node_list); do echo "NodeName=$n NodeHostname=$n NodeAddr=$NET.${n#node}" >>"$SLURM_CONF"; done
  cat >>"$SLURM_CONF" <<END
PartitionName=DEFAULT Nodes=ALL OverSubscribe=NO
PartitionName=low Default=YES PriorityTier=1 PreemptMode=REQUEUE GraceTime=30
PartitionName=high PriorityTier=10 PreemptMode=OFF
END
}

boot_node() { # NODE
  local n=$1 pid link=vs$ID-${1#node}
  ! alive "$n" || return 0
  # PID 1 of the node is this bash: when it is killed, the kernel kills all the others.
  setsid unshare --net --uts --ipc --mount --pid --fork --kill-child=KILL --mount-proc bash -c '
    node=$1 dir=$2 address=$3
    hostname "$node"
    mount --bind "$dir/hosts" /etc/hosts
    mount --bind "$dir/resolv.conf" /etc/resolv.conf
    mount -t tmpfs tmpfs /dev/shm
    until ip link show eth0 >/dev/null 2>&1; do sleep 0.05; done
    ip link set lo up && ip addr add "$address/24" dev eth0 && ip link set eth0 up
    slurmd -D -N "$node" &
    wait $!
  ' _ "$n" "$DIR" "$NET.${n#node}" >>"$DIR/log/$n.out.log" 2>&1 </dev/null &
  pid=$!
  echo "$pid" >"$DIR/run/$n.pid"
  disown
  until_ok "the namespace of $n" bash -c "! [ /proc/$pid/ns/net -ef /proc/self/ns/net ]"
  ip link del "$link" 2>/dev/null || true # of the node that was
  # A node keeps its hardware address, or the others would call the old one for seconds.
  ip link add "$link" type veth peer name eth0 address "$(printf '02:00:00:00:%02x:%02x' "$ID" "${n#node}")" netns "$pid"
  ip link set "$link" master "$BRIDGE" up
}

daemon() { # NAME COMMAND...
  local name=$1
  shift
  setsid "$@" >>"$DIR/log/$name.out.log" 2>&1 </dev/null &
  echo $! >"$DIR/run/$name.pid"
  disown
}

start() {
  local n
  [ "$(id -u)" = 0 ] || die "must run as root"
  mkdir -p "$DIR"/{run,log,state,spool}
  chmod 755 "$DIR"
  alive slurmctld || configure
  ip link show "$BRIDGE" >/dev/null 2>&1 || ip link add "$BRIDGE" type bridge
  ip addr replace "$NET.254/24" dev "$BRIDGE"
  ip link set "$BRIDGE" up
  alive munged || daemon munged munged --foreground --force --key-file="$DIR/munge.key" \
    --socket="$DIR/run/munge.socket" --pid-file="$DIR/run/munged.daemon.pid" \
    --log-file="$DIR/log/munged.log" --seed-file="$DIR/run/munged.seed"
  until_ok munge munge -n --socket "$DIR/run/munge.socket"
  alive slurmctld || daemon slurmctld slurmctld -D
  for n in $(node_list); do boot_node "$n"; done
  until_ok slurmctld scontrol ping
  for n in $(node_list); do until_ok "$n" node_is_up "$n"; done
}

kill_now() { # NAME: nobody needs its state
  local pid
  pid=$(pid_of "$1") && kill -KILL "$pid" 2>/dev/null || true
  until_ok "the end of $1" bash -c "! grep -qs '^State:.[^Z]' /proc/$pid/status"
  rm -f "$DIR/run/$1.pid"
}

stop() {
  local name
  for name in $(node_list) slurmctld munged; do
    ! alive "$name" || kill_now "$name"
  done
  for name in "$BRIDGE" /sys/class/net/vs"$ID"-*; do ip link del "${name##*/}" 2>/dev/null || true; done
}

case ${1:-} in
  install) install ;;
  start) start ;;
  stop) stop ;;
  kill-node) kill_now "$2" ;;
  boot-node) boot_node "$2" && until_ok "$2" node_is_up "$2" ;;
  *) die "usage: cluster.sh install | start | stop | kill-node NODE | boot-node NODE" ;;
esac
