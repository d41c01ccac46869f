#!/usr/bin/env python3
"""Connects to a container without a pause, and counts what became of it, until standard input ends.

usage: traffic.py ADDRESS ALLOWED DENIED. Prints JSON: {"allowed", "lost", "kept", "broken", "denied", "leaked"}.
`kept` are requests on one connection that stays open all the time.
"""

import json
import socket
import sys
import threading

address, allowed, denied = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
counts = dict.fromkeys(("allowed", "lost", "kept", "broken", "denied", "leaked"), 0)
stop = threading.Event()
REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


def new_connections():
    while not stop.is_set():
        try:
            with socket.create_connection((address, allowed), timeout=2) as connection:
                connection.sendall(REQUEST)
                counts["allowed" if connection.recv(4) == b"HTTP" else "lost"] += 1
        except OSError:
            counts["lost"] += 1


def one_connection():
    try:
        with socket.create_connection((address, allowed), timeout=2) as connection:
            while not stop.wait(0.02):
                connection.sendall(REQUEST)
                answer = b""
                while b"\r\n\r\n" not in answer:
                    answer += connection.recv(4096)
                head, body = answer.split(b"\r\n\r\n", 1)
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                while len(body) < length:
                    body += connection.recv(4096)
                counts["kept"] += 1
    except (OSError, IndexError):
        counts["broken"] += 1


def denied_connections():
    while not stop.is_set():
        try:
            socket.create_connection((address, denied), timeout=0.1).close()
            counts["leaked"] += 1
        except OSError:
            counts["denied"] += 1


threads = [threading.Thread(target=new_connections), threading.Thread(target=one_connection)]
threads += [threading.Thread(target=denied_connections) for _ in range(4)]
for thread in threads:
    thread.start()
print("begun", flush=True)
sys.stdin.read()
stop.set()
for thread in threads:
    thread.join()
print(json.dumps(counts))
