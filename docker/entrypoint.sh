#!/bin/sh
# Sets OMP_NUM_THREADS to the number of CPUs that this container may use, and runs its arguments.
#
# Threads = the physical cores of the affinity mask (docker run --cpuset-cpus) or the CPU quota (docker run --cpus, a
# Kubernetes limit), rounded down, whichever is smaller, and at least 1. With more threads than CPUs, all threads wait at
# every barrier for the one that is not running. OMP_NUM_THREADS is not changed if it is set.
#
# If Intel OpenMP is preloaded, its threads are bound to cores (KMP_AFFINITY), unless a quota is the smaller limit:
# containers with a quota share cores, and all of them would bind to the same first cores.
#
# Tests set ITREX_SWEET_ROOT, a prefix of /proc and /sys.
set -eu

root=${ITREX_SWEET_ROOT:-}
cgroup=$root/sys/fs/cgroup

# first_line FILE: prints the first line; fails if there is none.
first_line() {
    [ -r "$1" ] || return 1
    IFS= read -r line <"$1" || [ -n "$line" ] || return 1
    printf '%s\n' "$line"
}

# is_number TEXT: succeeds for an integer without sign.
is_number() {
    case $1 in '' | *[!0-9]*) return 1 ;; esac
}

# allowed_cpus: prints the affinity mask, as in 0-3,8.
allowed_cpus() {
    [ -r "$root/proc/self/status" ] || return 0
    sed -n 's/^Cpus_allowed_list:[[:space:]]*//p' "$root/proc/self/status"
}

# cores LIST: prints the number of physical cores of these CPUs; a CPU with unknown siblings counts as one.
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

# quota: prints the CPU quota of the control group, rounded down, at least 1; prints nothing without a limit.
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
