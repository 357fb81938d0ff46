#!/usr/bin/env bash
# A throw-away SLURM cluster of one machine, for tests: no systemd, no cgroups, pretended CPUs and GPUs.
# Needs root on Debian or Ubuntu; installs SLURM's packages if they are missing.
#
#   scripts/slurm_sandbox.sh up|down|status      then: export SLURM_CONF=/var/lib/bm-slurm/slurm.conf
#
# SLURM_SANDBOX: its folder; SLURM_SANDBOX_PORT: first of three ports.
set -euo pipefail

FOLDER=${SLURM_SANDBOX:-/var/lib/bm-slurm}
PORT=${SLURM_SANDBOX_PORT:-7417}
CPUS=16
GPUS=8
HOST=$(hostname -s)
MARK=$FOLDER/.bm-slurm-sandbox
export SLURM_CONF=$FOLDER/slurm.conf

is_alive() { # a pid file names a process that runs, and isn't a zombie
    local pid
    pid=$(cat "$1" 2>/dev/null) && [ -n "$pid" ] && kill -0 "$pid" 2>/dev/null &&
        ! grep -q '^State:.Z' "/proc/$pid/status" 2>/dev/null
}

wait_until() {
    for _ in $(seq 300); do
        "$@" >/dev/null 2>&1 && return
        sleep 0.1
    done
    echo "slurm_sandbox: gave up waiting for: $*" >&2
    return 1
}

end() {
    if is_alive "$1"; then
        kill "$(cat "$1")" || true
        for _ in $(seq 100); do is_alive "$1" || break; sleep 0.1; done
    fi
    rm -f "$1"
}

install_packages() {
    local missing=""
    for package in slurmctld slurmd slurm-client slurmdbd mariadb-server munge; do
        dpkg -s "$package" >/dev/null 2>&1 || missing="$missing $package"
    done
    [ -n "$missing" ] || return 0
    local policy=/usr/sbin/policy-rc.d made=""  # keeps packages from starting services
    if [ ! -e $policy ]; then printf '#!/bin/sh\nexit 101\n' > $policy; chmod +x $policy; made=1; fi
    apt-get update -qq
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
    [ -z "$made" ] || rm -f $policy
}

start_munge() {
    is_alive "$FOLDER/munged.pid" && return
    mkdir -p "$FOLDER/munge"
    chmod 700 "$FOLDER/munge"
    [ -s "$FOLDER/munge/key" ] || (umask 077; head -c 1024 /dev/urandom > "$FOLDER/munge/key")
    rm -f "$FOLDER/munge.sock" "$FOLDER/munge.sock.lock"
    munged --key-file="$FOLDER/munge/key" --socket="$FOLDER/munge.sock" --pid-file="$FOLDER/munged.pid" \
        --log-file="$FOLDER/munge/log" --seed-file="$FOLDER/munge/seed" --num-threads=2
    wait_until munge --socket "$FOLDER/munge.sock" -n
}

start_database() { # without accounting, the state of every job stays UNKNOWN to submitit and Dora
    is_alive "$FOLDER/mariadb.pid" && return
    if [ ! -d "$FOLDER/db/mysql" ]; then
        mkdir -p "$FOLDER/db"
        mariadb-install-db --no-defaults --user=root --auth-root-authentication-method=socket \
            --skip-test-db --datadir="$FOLDER/db" >"$FOLDER/log/mariadb-install" 2>&1
    fi
    mariadbd --no-defaults --user=root --datadir="$FOLDER/db" --skip-networking --socket="$FOLDER/mariadb.sock" \
        --pid-file="$FOLDER/mariadb.pid" --innodb-buffer-pool-size=64M --innodb-flush-log-at-trx-commit=0 \
        --skip-log-bin >"$FOLDER/log/mariadb" 2>&1 </dev/null &
    disown
    wait_until mariadb --no-defaults --socket="$FOLDER/mariadb.sock" -e 'select 1'
    mariadb --no-defaults --socket="$FOLDER/mariadb.sock" -e 'create database if not exists slurm_acct_db'
}

write_configuration() {
    # Numbers of jobs go on after a reset: folders of earlier jobs must never seem to be theirs.
    [ -s "$FOLDER/first_job" ] || echo $(($(date +%s) % 10000000 + 1)) > "$FOLDER/first_job"
    cat > "$FOLDER/slurmdbd.conf" <<CONF
AuthType=auth/munge
AuthInfo=socket=$FOLDER/munge.sock
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort=$((PORT + 2))
SlurmUser=root
LogFile=$FOLDER/log/slurmdbd
PidFile=$FOLDER/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=slurm_acct_db
CONF
    chmod 600 "$FOLDER/slurmdbd.conf"
    # cred_expire: a job that was requeued starts again after so many seconds, not after two minutes.
    cat > "$SLURM_CONF" <<CONF
ClusterName=sandbox
SlurmctldHost=$HOST(127.0.0.1)
SlurmctldPort=$PORT
SlurmdPort=$((PORT + 1))
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket=$FOLDER/munge.sock,cred_expire=5
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
StateSaveLocation=$FOLDER/ctld
SlurmdSpoolDir=$FOLDER/spool
SlurmctldPidFile=$FOLDER/slurmctld.pid
SlurmdPidFile=$FOLDER/slurmd.pid
SlurmctldLogFile=$FOLDER/log/slurmctld
SlurmdLogFile=$FOLDER/log/slurmd
SlurmdParameters=config_overrides
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MinJobAge=600
FirstJobId=$(cat "$FOLDER/first_job")
KillWait=3
InactiveLimit=0
GresTypes=gpu
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort=$((PORT + 2))
AccountingStoragePass=$FOLDER/munge.sock
JobAcctGatherType=jobacct_gather/linux
NodeName=$HOST NodeAddr=127.0.0.1 CPUs=$CPUS Boards=1 SocketsPerBoard=1 CoresPerSocket=$CPUS ThreadsPerCore=1 RealMemory=400000 Gres=gpu:$GPUS State=UNKNOWN
PartitionName=cpu Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO
CONF
    mkdir -p "$FOLDER/gpus"  # only counted by SLURM; copies of /dev/null
    for number in $(seq 0 $((GPUS - 1))); do
        [ -e "$FOLDER/gpus/gpu$number" ] || mknod "$FOLDER/gpus/gpu$number" c 1 3 2>/dev/null || : > "$FOLDER/gpus/gpu$number"
    done
    printf 'AutoDetect=off\nNodeName=%s Name=gpu File=%s/gpus/gpu[0-%d]\n' "$HOST" "$FOLDER" $((GPUS - 1)) > "$FOLDER/gres.conf"
    echo "CgroupAutomount=no" > "$FOLDER/cgroup.conf"
}

has_database() { (exec 3<>"/dev/tcp/127.0.0.1/$((PORT + 2))") 2>/dev/null; }
has_node() { sinfo -h -o %T | grep -qE 'idle|mixed|alloc'; }

up() {
    install_packages
    mkdir -p "$FOLDER"/{ctld,spool,log}
    chmod 755 "$FOLDER"
    : > "$MARK"
    start_munge
    start_database
    write_configuration
    if ! is_alive "$FOLDER/slurmdbd.pid"; then
        (cd "$FOLDER" && MYSQL_UNIX_PORT="$FOLDER/mariadb.sock" slurmdbd)
        wait_until has_database
        wait_until timeout 5 sacctmgr -n list cluster
        sacctmgr -n list cluster format=cluster | grep -q sandbox || sacctmgr -i add cluster sandbox >/dev/null
    fi
    is_alive "$FOLDER/slurmctld.pid" || { slurmctld -f "$SLURM_CONF"; wait_until scontrol ping; }
    is_alive "$FOLDER/slurmd.pid" || slurmd -f "$SLURM_CONF"
    if ! wait_until has_node; then
        tail -n 20 "$FOLDER/log/slurmctld" "$FOLDER/log/slurmd" >&2
        return 1
    fi
    echo "SLURM is up:  export SLURM_CONF=$SLURM_CONF"
}

down() {
    if is_alive "$FOLDER/slurmctld.pid"; then scancel --user=root 2>/dev/null || true; sleep 1; fi
    for daemon in slurmd slurmctld slurmdbd mariadb munged; do end "$FOLDER/$daemon.pid"; done
    if [ -e "$MARK" ]; then rm -rf "$FOLDER"; fi  # only a folder that this script has made
}

status() {
    for daemon in munged mariadb slurmdbd slurmctld slurmd; do
        if is_alive "$FOLDER/$daemon.pid"; then echo "$daemon is up"; else echo "$daemon is down"; fi
    done
}

case "${1:-}" in
    up | down | status) "$1" ;;
    *) echo "usage: $0 up|down|status" >&2; exit 2 ;;
esac
