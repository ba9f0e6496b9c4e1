#!/bin/sh
# The container engine of a pod: a firewall for functions first, then dockerd. Arguments are passed on to dockerd.
#
#   engine.sh [OPTION...]    starts it; ends with an error, before anything runs, when the firewall cannot be had
#   engine.sh ready          whether it answers and its firewall is in force
#
# ENGINE_HOST    where dockerd listens (unix:///var/run/fn-engine/docker.sock)
# ENGINE_DATA    its folder (/var/lib/engine/docker)
# ENGINE_GROUP   the group that may use its socket (65532, that of the node)
# ENGINE_ALLOW   IPv4 networks that functions may reach although they are not public, separated by spaces
# ENGINE_DENY    networks that they may not reach although they are public, such as those of the machines
set -eu

: "${ENGINE_HOST:=unix:///var/run/fn-engine/docker.sock}" "${ENGINE_DATA:=/var/lib/engine/docker}"
: "${ENGINE_GROUP:=65532}" "${ENGINE_ALLOW:=}" "${ENGINE_DENY:=}"
PRIVATE="0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.168.0.0/16 198.18.0.0/15 224.0.0.0/3"
BRIDGES="docker0 br-+"

# As dockerd's own image chooses: both must use the same tables.
if [ -n "$(cat /proc/net/ip_tables_names 2>/dev/null)" ] || ! iptables -w -nL >/dev/null 2>&1; then
    PATH="/usr/local/sbin/.iptables-legacy:$PATH"
fi

# chain IPTABLES NAME: an empty chain of that name
chain() {
    "$1" -w -N "$2" 2>/dev/null || "$1" -w -F "$2"
}

# first IPTABLES CHAIN RULE...: the rule once, before all others
first() {
    program=$1 where=$2
    shift 2
    while "$program" -w -D "$where" "$@" 2>/dev/null; do :; done
    "$program" -w -I "$where" "$@"
}

firewall() {
    # What goes out from a function, on its way to anywhere else.
    chain iptables FN-FUNCTIONS
    for server in $(sed -n 's/^nameserver[[:space:]]*\([0-9.]*\)[[:space:]]*$/\1/p' /etc/resolv.conf); do
        for protocol in udp tcp; do
            iptables -w -A FN-FUNCTIONS -d "$server" -p "$protocol" --dport 53 -j RETURN
        done
    done
    for network in $ENGINE_DENY; do iptables -w -A FN-FUNCTIONS -d "$network" -j REJECT; done
    for network in $ENGINE_ALLOW; do iptables -w -A FN-FUNCTIONS -d "$network" -j RETURN; done
    for network in $PRIVATE; do iptables -w -A FN-FUNCTIONS -d "$network" -j REJECT; done
    # Docker asks this chain before its own, and leaves it alone.
    chain iptables DOCKER-USER
    for bridge in $BRIDGES; do
        iptables -w -A DOCKER-USER -i "$bridge" -j FN-FUNCTIONS
        # The pod itself: the runner's ports, and the engine's.
        first iptables INPUT -i "$bridge" -j REJECT
    done
    # Functions have no IPv6. Should the engine be told to give them some, it leads nowhere.
    if ip6tables -w -nL >/dev/null 2>&1; then
        chain ip6tables DOCKER-USER
        for bridge in $BRIDGES; do
            ip6tables -w -A DOCKER-USER -i "$bridge" -j REJECT
            first ip6tables INPUT -i "$bridge" -j REJECT
            first ip6tables FORWARD -i "$bridge" -j REJECT
        done
    fi
}

# Functions belong below the cgroup of this container, whose limits are theirs together. A privileged container sees
# the cgroups of the whole machine, and dockerd would make those of functions beside the pod's.
below_own_cgroup() {
    root=/sys/fs/cgroup
    [ -f "$root/cgroup.controllers" ] || return 0
    own=$(sed -n 's/^0:://p' /proc/self/cgroup)
    own=${own%/engine}
    own=${own%/}
    # The machine's own root has no such file, and is nobody's to divide.
    [ -f "$root$own/cgroup.type" ] || return 0
    # Processes are in the leaves only.
    mkdir -p "$root$own/engine" "$root$own/functions"
    while read -r process; do
        echo "$process" >"$root$own/engine/cgroup.procs" 2>/dev/null || :
    done <"$root$own/cgroup.procs"
    for controller in $(cat "$root$own/cgroup.controllers"); do
        echo "+$controller" >"$root$own/cgroup.subtree_control" 2>/dev/null || :
    done
    echo "$own/functions"
}

# Networks between pods carry less than 1500 bytes at once, and functions must not send more.
mtu() {
    interface=$(awk '$2 == "00000000" && $8 == "00000000" { print $1; exit }' /proc/net/route)
    if [ -n "$interface" ]; then
        ip -o link show dev "$interface" | sed 's/.* mtu \([0-9]*\).*/\1/'
    else
        echo 1500
    fi
}

if [ "${1:-}" = ready ]; then
    iptables -w -C DOCKER-USER -i docker0 -j FN-FUNCTIONS
    iptables -w -C INPUT -i docker0 -j REJECT
    iptables -w -S FORWARD | sed -n '/^-A/{p;q;}' | grep -q -- '-j DOCKER-USER'
    exec docker --host "$ENGINE_HOST" version --format 'dockerd {{.Server.Version}}'
fi

firewall
parent=$(below_own_cgroup)
mkdir -p "$ENGINE_DATA"
# The volume belongs to the group of the pod, which is to go no further down.
chmod g-s "$ENGINE_DATA"
chgrp 0 "$ENGINE_DATA"
# A container that ended without a word leaves it behind.
rm -f /var/run/docker.pid
exec docker-init -s -- dockerd --host="$ENGINE_HOST" --group="$ENGINE_GROUP" --data-root="$ENGINE_DATA" \
    --icc=false --mtu="$(mtu)" ${parent:+--cgroup-parent="$parent"} "$@"
