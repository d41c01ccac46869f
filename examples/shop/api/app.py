"""The shop's application: counts visits in PostgreSQL and hits in Redis, and says so as JSON.

GET /        one SQL INSERT, one SQL SELECT, one Redis INCR: {"visits": 3, "hits": 3, "instance": "8c1f…"}
GET /health  {"ok": true} without touching either

Environment: DATABASE_URL (postgresql://user:password@host/name) and REDIS_URL (redis://host:6379/0).
Every request makes connections of its own, so that each one shows what the firewall says now.
"""

import json
import os
import socket
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import psycopg2
import redis


def visit():
    """Counts this visit in both stores; returns the counts."""
    database = psycopg2.connect(os.environ["DATABASE_URL"], connect_timeout=3)
    try:
        with database, database.cursor() as cursor:
            # Two first visitors may create the table at the same moment; PostgreSQL lets one of them fail, hence the lock.
            cursor.execute("SELECT pg_advisory_xact_lock(1)")
            cursor.execute("CREATE TABLE IF NOT EXISTS visits (at timestamptz NOT NULL DEFAULT now())")
            cursor.execute("INSERT INTO visits DEFAULT VALUES")
            cursor.execute("SELECT count(*) FROM visits")
            (visits,) = cursor.fetchone()
    finally:
        database.close()
    cache = redis.Redis.from_url(os.environ["REDIS_URL"], socket_connect_timeout=3, socket_timeout=3)
    try:
        hits = cache.incr("hits")
    finally:
        cache.close()
    return {"visits": visits, "hits": hits, "instance": socket.gethostname()}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/health":
            self.reply(200, {"ok": True})
        elif self.path == "/":
            try:
                self.reply(200, visit())
            except (psycopg2.Error, redis.RedisError) as error:
                self.reply(503, {"error": type(error).__name__, "message": str(error).strip()})
        else:
            self.reply(404, {"error": "NotFound", "message": self.path})

    def reply(self, status, value):
        body = (json.dumps(value) + "\n").encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format, *args):
        print(self.address_string(), format % args, flush=True)


class Server(ThreadingHTTPServer):
    address_family = socket.AF_INET6
    daemon_threads = True
    request_queue_size = 64

    def server_bind(self):
        # One socket for IPv4 and IPv6.
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()


if __name__ == "__main__":
    for name in ("DATABASE_URL", "REDIS_URL"):
        if name not in os.environ:
            sys.exit(f"{name} is not set; see examples/shop/compose.yaml")
    print("listening on port 8000", flush=True)
    Server(("::", 8000), Handler).serve_forever()
