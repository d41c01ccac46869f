# Owns private Docker hosts: a dockerd in a network namespace of its own, and a second namespace that plays the outside world.
#
# Nothing is shared with the system's Docker: data root, exec root, containerd, socket, bridges and iptables are the
# private host's own. A host called NAME consists of
#   netns swall-NAME        the Docker host:  uplink0 192.168.231.2 and fd5e:2310::2, default route to the outside
#   netns swall-NAME-out    the outside:      uplink0 192.168.231.1 and fd5e:2310::1, and the addresses in OUTSIDE_*
#   /run/swall-NAME         docker.sock, dockerd.log, daemon.json, exec/ (containerd's socket is below it), outside.log
#   $SWALL_DATA/NAME        the data root, on the disk of the build folder
# and of a mount namespace, see engine.sh.
# shellcheck shell=bash

# Addresses in the outside world. The second pair is globally routed for real, so that "internet" can be told from
# "world"; being in a namespace without an uplink, no packet ever gets to its owner.
export OUTSIDE_DNS4=203.0.113.53 OUTSIDE_DNS6=2001:db8:53::53
export OUTSIDE_NET4=9.9.9.9 OUTSIDE_NET6=2620:fe::9
export HOST_ADDR4=192.168.231.2 HOST_ADDR6=fd5e:2310::2

LIB=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
SWALL_DATA=${SWALL_DATA:-$(realpath -m "${CARGO_TARGET_DIR:-$LIB/../../target}/private-docker")}
# shellcheck source=scripts/lib/engine.sh
. "$LIB/engine.sh"

host_netns() { echo "swall-$1"; }
outside_netns() { echo "swall-$1-out"; }
host_run() { echo "/run/swall-$1"; }
host_data() { echo "$SWALL_DATA/$1"; }
host_socket() { echo "$(host_run "$1")/docker.sock"; }
host_containerd() { echo "$(host_run "$1")/exec/containerd/containerd.sock"; }

# on_host NAME COMMAND…: runs COMMAND as a process of the private Docker host, in its network namespace.
# (Not `ip netns exec`: that remounts /sys and hides the cgroups from dockerd.)
on_host() { nsenter --net="/run/netns/$(host_netns "$1")" "${@:2}"; }

# outside NAME COMMAND…: runs COMMAND in the outside world.
outside() { nsenter --net="/run/netns/$(outside_netns "$1")" "${@:2}"; }

# host_docker NAME ARGS…: the Docker client, talking to the private host and reading nobody's settings.
host_docker() {
  env -u DOCKER_CONTEXT -u DOCKER_TLS_VERIFY -u DOCKER_CERT_PATH DOCKER_CONFIG="$(host_run "$1")/client" \
    DOCKER_BUILDKIT=0 DOCKER_CLI_HINTS=false DOCKER_HOST="unix://$(host_socket "$1")" docker "${@:2}"
}

# host_compose NAME ARGS…: docker-compose or the compose plugin, whichever is there.
host_compose() {
  local -a compose=(docker-compose)
  command -v docker-compose >/dev/null || compose=(docker compose)
  env -u DOCKER_CONTEXT -u DOCKER_TLS_VERIFY -u DOCKER_CERT_PATH DOCKER_CONFIG="$(host_run "$1")/client" \
    COMPOSE_IGNORE_ORPHANS=1 DOCKER_HOST="unix://$(host_socket "$1")" "${compose[@]}" "${@:2}"
}

# host_network NAME: creates both namespaces and the cable between them. The cable never shows in the machine's own.
host_network() {
  local host outside
  host=$(host_netns "$1") outside=$(outside_netns "$1")
  ip netns add "$host"
  ip netns add "$outside"
  # Address conflicts are impossible here, so waiting two seconds for duplicate address detection is pointless.
  on_host "$1" sysctl -qw net.ipv6.conf.default.accept_dad=0 net.ipv6.conf.all.forwarding=1 net.ipv4.ip_forward=1
  outside "$1" sysctl -qw net.ipv6.conf.default.accept_dad=0
  ip -n "$host" link add uplink0 type veth peer name uplink0 netns "$outside"
  ip -n "$host" -batch - <<END
link set lo up
addr add $HOST_ADDR4/24 dev uplink0
addr add $HOST_ADDR6/64 dev uplink0 nodad
link set uplink0 up
route add default via 192.168.231.1
END
  ip -n "$outside" -batch - <<END
link set lo up
addr add 192.168.231.1/24 dev uplink0
addr add fd5e:2310::1/64 dev uplink0 nodad
addr add $OUTSIDE_DNS4/32 dev lo
addr add $OUTSIDE_DNS6/128 dev lo nodad
addr add $OUTSIDE_NET4/32 dev lo
addr add $OUTSIDE_NET6/128 dev lo nodad
link set uplink0 up
route add 172.16.0.0/12 via $HOST_ADDR4
END
  ip -n "$host" -6 route add default via fd5e:2310::1
  ip -n "$outside" -6 route add fd5e:d0c::/32 via $HOST_ADDR6
}

# host_start NAME: starts dockerd and returns when it answers.
host_start() {
  local run data pid
  run=$(host_run "$1") data=$(host_data "$1")
  rm -f "$run/dockerd.pid"
  in_engine "$1" setsid dockerd --config-file "$run/daemon.json" \
    --data-root "$data" --exec-root "$run/exec" --pidfile "$run/dockerd.pid" -H "unix://$run/docker.sock" \
    </dev/null >>"$run/dockerd.log" 2>&1 &
  pid=$!
  disown "$pid"
  # shellcheck disable=SC2317 # called by wait_until
  answers_or_died() { ! kill -0 "$pid" || host_docker "$1" version; }
  wait_until 60 answers_or_died "$1" || true
  if ! host_docker "$1" version >/dev/null 2>&1; then
    tail -n 20 "$run/dockerd.log" >&2
    die "the private dockerd '$1' did not start; its log is above"
  fi
}

# dead PID: whether no such process runs (a zombie does not).
dead() { ! grep -qs '^State:[[:space:]]*[^ZX]' "/proc/$1/status"; }

# host_stop NAME [SIGNAL]: ends dockerd and its containerd, by TERM unless another signal is named. By TERM, containers
# end with it unless live-restore is on.
host_stop() {
  local run pid pidfile
  run=$(host_run "$1")
  for pidfile in "$run/dockerd.pid" "$run/exec/containerd/containerd.pid"; do
    pid=$(cat "$pidfile" 2>/dev/null || true)
    if [[ -z $pid ]] || dead "$pid"; then continue; fi
    kill "-${2:-TERM}" "$pid"
    wait_until 60 dead "$pid" || die "$(basename "$pidfile" .pid) of private host '$1' does not end"
  done
}

# host_reload NAME: has dockerd read its daemon.json again, and returns when it did.
host_reload() {
  local since
  since=$(date +%s.%N)
  kill -HUP "$(cat "$(host_run "$1")/dockerd.pid")"
  # shellcheck disable=SC2317 # called by wait_until
  was_reloaded() {
    host_docker "$1" events --since "$since" --until "$(date +%s.%N)" --filter type=daemon --filter event=reload | grep -q reload
  }
  wait_until 10 was_reloaded "$1" || die "dockerd of '$1' did not take its daemon.json: $(tail -n 3 "$(host_run "$1")/dockerd.log")"
}

# host_up NAME [STORE [ROOTFS [CONFIG]]]: makes and starts a host. STORE is a folder of prepared images (scripts/images),
# ROOTFS an engine other than the system's (scripts/engines), CONFIG a file whose keys go into daemon.json.
host_up() {
  local run data
  run=$(host_run "$1") data=$(host_data "$1")
  [[ ! -e $run ]] || die "a private Docker host '$1' exists already: scripts/private-docker down $1"
  mkdir -p "$run/client" "$data"
  chmod 711 "$data"
  # Docker 20.10 gives every network the same IPv6 subnet when "size" is 64 or less.
  cat >"$run/daemon.json" <<END
{
  "experimental": true, "ip6tables": true, "ipv6": true, "fixed-cidr-v6": "fd5e:d0c:0:ffff::/64",
  "default-address-pools": [
    {"base": "172.24.0.0/14", "size": 24},
    {"base": "fd5e:d0c:0:1::/72", "size": 80}
  ],
  "dns": ["$OUTSIDE_DNS4"],
  "storage-driver": "overlay2", "features": {"containerd-snapshotter": false},
  "log-level": "warn"
}
END
  [[ -z ${4:-} ]] || merge_json "$run/daemon.json" "$4"
  # Hard links: lower layers are only ever read, and Docker replaces its metadata files instead of writing into them.
  [[ -z ${2:-} ]] || cp -al "$2/image" "$2/overlay2" "$data/"
  host_network "$1"
  engine_mounts "$1" "${3:-}"
  nsenter --net="/run/netns/$(outside_netns "$1")" setsid python3 "$LIB/outside.py" "$OUTSIDE_DNS4" "$OUTSIDE_DNS6" "$OUTSIDE_NET4" "$OUTSIDE_NET6" \
    </dev/null >"$run/outside.log" 2>&1 &
  disown $!
  wait_until 10 grep -q '^ready' "$run/outside.log" || die "the outside world did not come up: $(<"$run/outside.log")"
  host_start "$1"
}

# merge_json FILE OTHER: sets the keys of OTHER in FILE.
merge_json() {
  python3 -c 'import json, sys
file, other = sys.argv[1:]
merged = json.load(open(file)) | json.load(open(other))
json.dump(merged, open(file, "w"), indent=2)' "$1" "$2"
}

# host_pids NAME: every process of the host and its outside world: those in the two namespaces, and the containers,
# which have namespaces of their own but are children of shims that live in the host's.
host_pids() {
  local pid
  for pid in $(ip netns pids "$(host_netns "$1")" 2>/dev/null) $(ip netns pids "$(outside_netns "$1")" 2>/dev/null); do
    [[ $(cat "/proc/$pid/comm" 2>/dev/null) != containerd-shim* ]] || cat "/proc/$pid/task/"*/children 2>/dev/null || true
    echo "$pid"
  done
}

# host_kill NAME: kills all of them; whether none is left.
host_kill() {
  local pids
  pids=$(host_pids "$1")
  # shellcheck disable=SC2086 # a list of pids
  [[ -z $pids ]] || { kill -KILL $pids && return 1; }
}

# host_down NAME: takes away everything a host consists of, whatever state it is in. Never fails for what is gone.
host_down() {
  local run data mount
  run=$(host_run "$1") data=$(host_data "$1")
  # Killed, not asked: nothing of it is kept, so there is nothing to shut down in good order.
  wait_until 10 host_kill "$1" || say "processes of private host '$1' do not end: $(host_pids "$1" | xargs)"
  awk -v a="$run/" -v b="$(realpath -m "$data")/" 'index($5 "/", a) == 1 || index($5 "/", b) == 1 { print $5 }' /proc/self/mountinfo |
    sort -r | while read -r mount; do umount -l "$mount" 2>/dev/null || true; done
  ip netns del "$(host_netns "$1")" 2>/dev/null || true
  ip netns del "$(outside_netns "$1")" 2>/dev/null || true
  # The last threads of a killed dockerd may hold its mounts for a moment longer than its process shows.
  wait_until 5 rm -rf "$run" "$data" || rm -rf "$run" "$data"
}

# host_names: every private host there is on this machine.
host_names() {
  local run
  for run in /run/swall-*/; do
    [[ -d $run ]] && basename "$run" | sed 's/^swall-//'
  done
  return 0
}
