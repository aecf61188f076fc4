#!/bin/sh
# Sets OMP_NUM_THREADS to what this container may use, and runs its arguments.
#
# Threads = physical cores among the CPUs that the affinity mask allows (docker run --cpuset-cpus), or the
# CPU quota (docker run --cpus, a limit of Kubernetes) where that is less, rounded down: a thread without
# CPU time of its own keeps all others waiting at every barrier. At least 1. OMP_NUM_THREADS, if set, stays.
#
# Where Intel OpenMP is preloaded, its threads are bound to cores (KMP_AFFINITY) unless a quota is the
# narrower limit: containers under a quota share their cores, and would all bind to the same first ones.
#
# ITREX_SWEET_ROOT is put before /proc and /sys, for tests.
set -eu

root=${ITREX_SWEET_ROOT:-}
cgroup=$root/sys/fs/cgroup

# first_line FILE: fails if there is none.
first_line() {
    [ -r "$1" ] || return 1
    IFS= read -r line <"$1" || [ -n "$line" ] || return 1
    printf '%s\n' "$line"
}

# is_number TEXT: a whole number without sign.
is_number() {
    case $1 in '' | *[!0-9]*) return 1 ;; esac
}

# allowed_cpus: the affinity mask, as in 0-3,8.
allowed_cpus() {
    [ -r "$root/proc/self/status" ] || return 0
    sed -n 's/^Cpus_allowed_list:[[:space:]]*//p' "$root/proc/self/status"
}

# cores LIST: physical cores among these CPUs; a CPU whose siblings are unknown counts as one.
cores() {
    count=0
    seen=' '
    for range in $(printf '%s' "$1" | tr ',' ' '); do
        cpu=${range%-*}
        last=${range#*-}
        is_number "$cpu" || continue
        is_number "$last" || continue
        while [ "$cpu" -le "$last" ]; do
            core=$(first_line "$root/sys/devices/system/cpu/cpu$cpu/topology/thread_siblings_list") || core=alone-$cpu
            case $seen in
            *" $core "*) ;;
            *)
                seen="$seen$core "
                count=$((count + 1))
                ;;
            esac
            cpu=$((cpu + 1))
        done
    done
    echo "$count"
}

# quota: CPUs that the control group grants, rounded down, at least 1; nothing where it sets no limit.
quota() {
    if limit=$(first_line "$cgroup/cpu.max"); then # version 2: "200000 100000" or "max 100000"
        period=${limit#* }
        limit=${limit% *}
    else
        for folder in "$cgroup/cpu" "$cgroup/cpu,cpuacct"; do # version 1: microseconds, -1 for no limit
            limit=$(first_line "$folder/cpu.cfs_quota_us") || continue
            period=$(first_line "$folder/cpu.cfs_period_us") || continue
            break
        done
    fi
    is_number "$limit" || return 0
    is_number "${period:-}" || return 0
    [ "$period" -gt 0 ] || return 0
    granted=$((limit / period))
    echo $((granted > 0 ? granted : 1))
}

threads=$(cores "$(allowed_cpus)")
[ "$threads" -gt 0 ] || threads=1
bind=yes
granted=$(quota)
if [ -n "$granted" ] && [ "$granted" -lt "$threads" ]; then
    threads=$granted
    bind=no
fi

OMP_NUM_THREADS=${OMP_NUM_THREADS:-$threads}
export OMP_NUM_THREADS
case ${LD_PRELOAD:-} in
*libiomp5*)
    if [ "$bind" = yes ]; then
        KMP_AFFINITY=${KMP_AFFINITY:-granularity=fine,compact,1,0}
        export KMP_AFFINITY
    fi
    ;;
esac

exec "$@"
