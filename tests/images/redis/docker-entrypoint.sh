#!/bin/bash
# Runs the server as user redis, reachable from other containers.
set -euo pipefail
if [[ ${1:-} != redis-server ]]; then exec "$@"; fi
exec setpriv --reuid=redis --regid=redis --init-groups "$@" --protected-mode no --bind '*' '-::*'
