# Owns private machines: systemd as process 1 of a clean Debian, in namespaces of its own.
#
# A machine called NAME consists of
#   /run/swall-machine-NAME            layers/ (what it wrote, in memory), pid, console.log
#   $MACHINES/NAME                     its /var/lib/docker, on the disk of the build folder
#   swall-machine-NAME                 a cgroup in every hierarchy this machine has
# It may change nothing of the machine it runs on: /sys and /proc/sys are read-only but for /proc/sys/net, which is its own.
# shellcheck shell=bash

MACHINES=$(realpath -m "${CARGO_TARGET_DIR:-$(dirname "${BASH_SOURCE[0]}")/../../target}/machines")

# What a clean host with Docker has, and what seawall's package depends on: a machine has no network to get it from.
# rpm is there for the other package, python3 for what serves and what asks.
MACHINE_PACKAGES=systemd,systemd-sysv,dbus,docker.io,containerd,runc,tini,iptables,iproute2,nftables,procps,kmod
MACHINE_PACKAGES+=,libnftnl11,libmnl0,libsqlite3-0,ca-certificates,python3-minimal,man-db,rpm

machine_run() { echo "/run/swall-machine-$1"; }
machine_cgroup() { echo "swall-machine-$1"; }
machine_pid() { cat "$(machine_run "$1")/pid"; }
machine_names() {
  local run
  for run in /run/swall-machine-*/; do
    [[ -d $run ]] && basename "$run" | sed 's/^swall-machine-//'
  done
  return 0
}

# machine_dead PID: whether no such process runs (a zombie does not).
machine_dead() { ! grep -qs '^State:[[:space:]]*[^ZX]' "/proc/$1/status"; }

# machine_rootfs DEBIAN: prints the folder of its root filesystem; makes it first if need be.
machine_rootfs() {
  local packages=$MACHINE_PACKAGES rootfs
  case $1 in
    bookworm) ;;
    # From Debian 13 on the client is a package of its own.
    trixie) packages+=,docker-cli ;;
    *) die "no Debian '$1'; there are: bookworm trixie" ;;
  esac
  rootfs=$MACHINES/$1-$(printf '%s\n' "$1" "$packages" | sha256sum | cut -c1-16)
  mkdir -p "$MACHINES"
  # One builder of each at a time; the others find its result.
  exec 8>"$MACHINES/$1.lock"
  flock 8
  if [[ ! -d $rootfs ]]; then
    say "making the root filesystem of Debian $1 (about 40 s)"
    rm -rf "$MACHINES/$1"-*
    mmdebstrap --quiet --mode=root --variant=minbase --include="$packages" "$1" "$rootfs.part" >&2 8>&- ||
      { rm -rf "$rootfs.part" && die "Debian $1 could not be made; is a Debian mirror reachable?"; }
    # Every boot is one of the same machine, not a first one that asks questions.
    echo 0123456789abcdef0123456789abcdef >"$rootfs.part/etc/machine-id"
    echo machine >"$rootfs.part/etc/hostname"
    mv "$rootfs.part" "$rootfs"
  fi
  exec 8>&-
  echo "$rootfs"
}

# machine_make NAME ROOTFS STORE: makes its folders and its root; STORE is a folder of prepared images (scripts/images).
machine_make() {
  local run data layers
  run=$(machine_run "$1") data=$MACHINES/$1.docker
  [[ ! -e $run ]] || die "a private machine '$1' exists already: scripts/private-machine down $1"
  layers=$run/layers
  mkdir -p "$layers" "$data"
  chmod 711 "$data"
  # Hard links: lower layers are only ever read, and Docker replaces its metadata files instead of writing into them.
  cp -al "$3/image" "$3/overlay2" "$data/"
  # On tmpfs, because an overlay takes no overlay for its upper layer. Both are private, so that no process of another
  # namespace holds them.
  mount -t tmpfs machine "$layers"
  mount --make-private "$layers"
  mkdir "$layers"/{upper,work,merged}
  mount -t overlay machine -o "lowerdir=$2,upperdir=$layers/upper,workdir=$layers/work" "$layers/merged"
  mkdir -p "$layers/merged/var/lib/docker"
  mount --bind "$data" "$layers/merged/var/lib/docker"
}

# cgroup_hierarchies: where each is mounted.
cgroup_hierarchies() { findmnt --noheadings --list --types cgroup,cgroup2 --output TARGET; }

# machine_boot NAME: starts its systemd, and returns when that has started everything.
machine_boot() {
  local run group folder launcher
  run=$(machine_run "$1") group=$(machine_cgroup "$1")
  (
    # The root of its cgroups is where it begins.
    for folder in $(cgroup_hierarchies); do
      mkdir -p "$folder/$group"
      if [[ -e $folder/cpuset.cpus ]]; then
        cat "$folder/cpuset.cpus" >"$folder/$group/cpuset.cpus"
        cat "$folder/cpuset.mems" >"$folder/$group/cpuset.mems"
        echo 1 >"$folder/$group/cgroup.clone_children"
      fi
      echo "$BASHPID" >"$folder/$group/cgroup.procs"
    done
    # shellcheck disable=SC2016 # expanded by the inner shell
    exec setsid unshare --cgroup --mount --propagation private --uts --ipc --net --pid --fork bash -euc '
      root=$1
      mapfile -t groups < <(findmnt --noheadings --list --types cgroup,cgroup2 --output TARGET)
      cd "$root"
      mount -t proc proc proc
      mount --bind proc/sys proc/sys
      mount --bind proc/sys/net proc/sys/net
      mount -o remount,bind,ro proc/sys
      if [[ -e proc/sysrq-trigger ]]; then mount --bind /dev/null proc/sysrq-trigger; fi
      mount -t sysfs -o ro sysfs sys
      if [[ ${groups[*]} == /sys/fs/cgroup ]]; then
        mount -t cgroup2 cgroup2 sys/fs/cgroup
      else
        mount -t tmpfs -o mode=755 tmpfs sys/fs/cgroup
        for folder in "${groups[@]}"; do
          name=${folder##*/}
          mkdir "sys/fs/cgroup/$name"
          case $name in
            unified) mount -t cgroup2 cgroup2 sys/fs/cgroup/unified ;;
            systemd) mount -t cgroup -o none,name=systemd cgroup sys/fs/cgroup/systemd ;;
            *) mount -t cgroup -o "$name" cgroup "sys/fs/cgroup/$name" ;;
          esac
        done
      fi
      mount -t tmpfs -o mode=755 tmpfs dev
      for node in null zero full random urandom tty; do
        : >"dev/$node"
        mount --bind "/dev/$node" "dev/$node"
      done
      mkdir dev/pts dev/shm
      mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts dev/pts
      ln -s pts/ptmx dev/ptmx
      ln -s /proc/self/fd dev/fd
      mount -t tmpfs tmpfs dev/shm
      mount -t tmpfs -o mode=755 tmpfs run
      hostname machine
      mkdir -p .old
      pivot_root . .old
      umount -l /.old
      # Debian 13 boots on cgroups of the first version only if it is told so.
      exec env -i container=private-machine PATH=/usr/sbin:/usr/bin:/sbin:/bin \
        /sbin/init SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1 systemd.unified_cgroup_hierarchy=0
    ' machine "$run/layers/merged"
  ) </dev/null >"$run/console.log" 2>&1 &
  launcher=$!
  disown "$launcher"
  # shellcheck disable=SC2317 # called by wait_until
  machine_has_init() {
    local pid namespace
    # Before it, the launcher has other children, none of which is in another namespace.
    pid=$(cat "/proc/$1/task/$1/children") && pid=${pid%% *} && namespace=$(readlink "/proc/${pid:-0}/ns/pid") &&
      [[ $namespace != "$(readlink /proc/self/ns/pid)" ]] && echo "$pid" >"$2/pid"
  }
  wait_until 10 machine_has_init "$launcher" "$run" || die "the machine did not start: $(<"$run/console.log")"
  # Its bus is there before everything is started; what answers then says when that is so.
  # shellcheck disable=SC2317 # called by wait_until
  machine_answers() { machine_dead "$(machine_pid "$1")" || on_machine "$1" test -S /run/dbus/system_bus_socket; }
  wait_until 60 machine_answers "$1" || true
  if ! on_machine "$1" systemctl is-system-running --wait >/dev/null; then
    cat "$run/console.log" >&2
    on_machine "$1" systemctl list-units --failed >&2 || die "systemd did not boot"
    die "not everything started on the machine"
  fi
}

# on_machine NAME COMMAND…: runs COMMAND on it, as root.
on_machine() {
  local pid
  pid=$(machine_pid "$1")
  nsenter --target "$pid" --mount --uts --ipc --net --pid --cgroup --root \
    env -i --chdir=/root HOME=/root LANG=C.UTF-8 PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "${@:2}"
}

# machine_halt NAME: shuts it down in good order.
machine_halt() {
  local pid
  pid=$(machine_pid "$1")
  on_machine "$1" systemctl poweroff >/dev/null
  wait_until 60 machine_dead "$pid" || die "the machine '$1' does not shut down"
}

# machine_pids NAME: every process of it.
machine_pids() {
  local folder
  for folder in $(cgroup_hierarchies); do
    find "$folder/$(machine_cgroup "$1")" -name cgroup.procs -exec cat {} + 2>/dev/null || true
  done | sort -u
}

# machine_kill NAME: kills all of them, and takes its cgroups away; whether nothing is left.
machine_kill() {
  local pids folder
  pids=$(machine_pids "$1")
  # shellcheck disable=SC2086 # a list of pids
  [[ -z $pids ]] || { kill -KILL $pids && return 1; }
  for folder in $(cgroup_hierarchies); do
    folder+=/$(machine_cgroup "$1")
    [[ ! -d $folder ]] || find "$folder" -depth -type d -exec rmdir {} + || return 1
  done
}

# machine_down NAME: takes away everything a machine consists of, whatever state it is in. Never fails for what is gone.
machine_down() {
  local run
  run=$(machine_run "$1")
  wait_until 10 machine_kill "$1" || say "processes of machine '$1' do not end: $(machine_pids "$1" | xargs)"
  umount -l "$run/layers/merged/var/lib/docker" 2>/dev/null || true
  umount -l "$run/layers/merged" 2>/dev/null || true
  umount -l "$run/layers" 2>/dev/null || true
  wait_until 5 rm -rf "$run" "$MACHINES/$1.docker" || rm -rf "$run" "$MACHINES/$1.docker"
}
