# Owns installing what is missing, by apt, on Debian and Ubuntu. What is there already is left alone.
# shellcheck shell=bash disable=SC2034

# Each entry is "TEST:PACKAGE": a program, or a file below /, that is there when the package need not be installed.
BUILD_NEEDS=(cc:gcc pkg-config:pkg-config protoc:protobuf-compiler make:make
  /usr/include/libnftnl/common.h:libnftnl-dev /usr/include/libmnl/libmnl.h:libmnl-dev
  /usr/include/sqlite3.h:libsqlite3-dev)
RUN_NEEDS=(dockerd:docker.io containerd:containerd runc:runc nft:nftables ip:iproute2 iptables:iptables
  conntrack:conntrack mmdebstrap:mmdebstrap busybox:busybox-static python3:python3 nsenter:util-linux
  /usr/lib/python3/dist-packages/pyftpdlib:python3-pyftpdlib curl:curl ping:iputils-ping sysctl:procps crun:crun podman:podman
  /usr/share/keyrings/debian-archive-keyring.gpg:debian-archive-keyring)
OLD_KERNEL_NEEDS=(qemu-system-x86_64:qemu-system-x86 kmod:kmod cpio:cpio busybox:busybox-static mmdebstrap:mmdebstrap
  strip:binutils)
PACKAGE_NEEDS=(dh:debhelper dpkg-shlibdeps:dpkg-dev fakeroot:fakeroot rpmbuild:rpm python3:python3)
PACKAGE_TEST_NEEDS=(lintian:lintian systemd-analyze:systemd)

has() { if [[ $1 == /* ]]; then [[ -e $1 ]]; else command -v "$1" >/dev/null; fi; }

# need_packages ENTRY…: installs those whose test fails.
need_packages() {
  local entry missing=()
  for entry in "$@"; do
    has "${entry%%:*}" || missing+=("${entry#*:}")
  done
  if [[ " $* " == *" dockerd:"* ]] && ! command -v docker-compose >/dev/null && ! docker compose version >/dev/null 2>&1; then
    missing+=(docker-compose)
  fi
  ((${#missing[@]})) || return 0
  command -v apt-get >/dev/null || die "missing: ${missing[*]}; install them (only apt is known here)"
  ((EUID == 0)) || die "missing: ${missing[*]}; install them, or run this as root"
  say "installing ${missing[*]}"
  # Packages start their services when installed; the system's Docker is not wanted, only its programs.
  local policy=/usr/sbin/policy-rc.d made=''
  if [[ ! -e $policy ]]; then
    made=$policy
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
  fi
  local status=0
  { apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "${missing[@]}"; } >&2 || status=$?
  # From Debian 13 on the client is a package of its own, which docker.io only recommends.
  if ((status == 0)) && [[ " ${missing[*]} " == *" docker.io "* ]] && ! has docker; then
    DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends docker-cli >&2 || status=$?
  fi
  [[ -z $made ]] || rm -f "$made"
  ((status == 0)) || die "apt could not install ${missing[*]}"
}

# need_cargo: Rust, new enough; cargo of the user who called sudo is found too.
need_cargo() {
  local home
  for home in "$HOME" "$(getent passwd "${SUDO_USER:-root}" | cut -d: -f6)"; do
    [[ -d $home/.cargo/bin ]] && PATH=$home/.cargo/bin:$PATH
  done
  export PATH
  command -v cargo >/dev/null && return
  need_packages curl:curl cc:gcc
  say "installing Rust by rustup (about a minute)"
  curl -sSf --proto '=https' https://sh.rustup.rs | sh -s -- -y --profile minimal -c clippy -c rustfmt >&2 ||
    die "Rust could not be installed; see https://rustup.rs"
  PATH=$HOME/.cargo/bin:$PATH
}
