# Owns the files a private host's engine runs among: the machine's, or those of another Debian with another Docker.
#
# A host has a mount namespace of its own, so that no mount of its containers is seen outside, kept in
#   /run/swall-NAME/pin/mounts
# like the machine's own it outlives dockerd. With an engine of scripts/engines, its root is that engine's folder, under
# a layer of the host's own that is thrown away with it, while /proc, /sys and /dev are the machine's. The repository, the
# build folder, the host's own folders and the folder for temporary files lie where they lie outside: what an engine calls
# (a runtime that is built here) and what that calls in turn (a control socket in a temporary folder) has one path.
# shellcheck shell=bash

# in_engine NAME COMMAND…: runs COMMAND where the host's dockerd runs: in its network namespace and with its files.
in_engine() {
  nsenter --net="/run/netns/$(host_netns "$1")" --mount="$(host_run "$1")/pin/mounts" "${@:2}"
}

# engine_mounts NAME [ROOTFS]: makes the mount namespace of a host, on the machine's own files unless ROOTFS is given.
engine_mounts() {
  local run pin
  run=$(host_run "$1") pin=$run/pin
  mkdir -p "$pin" "$run/root"
  # A namespace can only be kept in a place that does not propagate into it.
  mount --bind "$pin" "$pin"
  mount --make-private "$pin"
  : >"$pin/mounts"
  # shellcheck disable=SC2016 # expanded by the inner shell
  unshare --mount="$pin/mounts" --propagation slave bash -euc '
    layers=$1 rootfs=$2
    shift 2
    # crun wants no controllers in the second version of cgroups beside the first.
    if mountpoint -q /sys/fs/cgroup/unified && grep -q . /sys/fs/cgroup/unified/cgroup.controllers; then
      umount /sys/fs/cgroup/unified
    fi
    [[ -n $rootfs ]] || exit 0
    # pivot_root wants nothing shared.
    mount --make-rprivate /
    # On tmpfs, because an overlay takes no overlay for its upper layer, and machines in containers have nothing else.
    mount -t tmpfs layers "$layers"
    mkdir "$layers"/{upper,work,merged}
    mount -t overlay engine -o "lowerdir=$rootfs,upperdir=$layers/upper,workdir=$layers/work" "$layers/merged"
    cd "$layers/merged"
    for path in /proc /sys /dev; do mount --rbind "$path" ".$path"; done
    mount -t tmpfs run run
    for path; do
      mkdir -p ".$path"
      mount --bind "$path" ".$path"
    done
    mkdir .old
    pivot_root . .old
    umount -l /.old
    rmdir /.old
  ' engine "$run/root" "${2:-}" "${TMPDIR:-/tmp}" "$(realpath "$LIB/../..")" "$(dirname "$SWALL_DATA")" "$run" "$(host_data "$1")"
}
