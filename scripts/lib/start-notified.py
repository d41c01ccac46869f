"""Starts a daemon and returns when it says that it is ready (sd_notify, READY=1).

usage: start-notified.py SECONDS LOG COMMAND [ARG…]

Prints the daemon's pid and leaves it running, its output in LOG. Fails when it ends first, or says nothing for SECONDS.
"""

import os
import socket
import subprocess
import sys
import tempfile
import time


def main(seconds, log, *command):
    with tempfile.TemporaryDirectory(prefix="swall-") as folder, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(os.path.join(folder, "notify"))
        notify.settimeout(0.1)
        with open(log, "ab") as output:
            daemon = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                env={**os.environ, "NOTIFY_SOCKET": notify.getsockname()},
            )
        deadline = time.monotonic() + float(seconds)
        while time.monotonic() < deadline:
            try:
                if b"READY=1" in notify.recv(4096).splitlines():
                    print(daemon.pid)
                    return
            except socket.timeout:
                pass
            if daemon.poll() is not None:
                sys.exit(f"it ended with status {daemon.returncode} before it was ready")
        daemon.kill()
        sys.exit(f"it did not say READY=1 within {seconds} s")


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
