# Owns how scripts speak: progress on stderr, colour only on a terminal, help out of a script's own first comment.
# shellcheck shell=bash

if [[ -t 2 && -z ${NO_COLOR:-} ]]; then
  DIM=$'\e[2m' BOLD=$'\e[1m' RED=$'\e[31m' GREEN=$'\e[32m' PLAIN=$'\e[0m'
else
  DIM='' BOLD='' RED='' GREEN='' PLAIN=''
fi
export DIM BOLD RED GREEN PLAIN

# say TEXT: one line of progress.
say() { printf '%s==>%s %s\n' "$BOLD" "$PLAIN" "$*" >&2; }

# die TEXT: says what failed and what to do about it, and ends the script with status 3.
die() {
  printf '%serror:%s %s\n' "$RED" "$PLAIN" "$*" >&2
  exit 3
}

# help_of FILE: prints the comment at the top of a script, which is its help.
help_of() { awk 'NR > 1 && !/^#/ { exit } NR > 1 { sub(/^# ?/, ""); print }' "$1"; }

# wait_until SECONDS COMMAND…: polls COMMAND every 50 ms; false when SECONDS have passed without success.
wait_until() {
  local deadline=$(($(date +%s) + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    (($(date +%s) < deadline)) || return 1
    sleep 0.05
  done
}

# need_root WHY: ends the script unless it runs as root.
need_root() { ((EUID == 0)) || die "$1 needs root: run it with sudo"; }
