"""An FTP server (pyftpdlib) for tests: server.py [--pretend ADDRESS] ADDRESS...

Serves `small` and `endless` to anonymous clients on port 21 of each address, and says `ready`. It connects to whatever
address a client names, and goes on sending when the control connection has ended: what stops that is for others to do.
With --pretend it tells clients to connect to another address than its own.
"""
import logging
import os
import sys
import tempfile

from pyftpdlib.authorizers import DummyAuthorizer
from pyftpdlib.handlers import FTPHandler
from pyftpdlib.ioloop import IOLoop
from pyftpdlib.servers import FTPServer


class Careless(FTPHandler):
    permit_foreign_addresses = True
    permit_privileged_ports = True

    def close(self):
        self.data_channel = self._dtp_connector = None
        super().close()


arguments = sys.argv[1:]
if arguments[0] == "--pretend":
    Careless.masquerade_address = arguments[1]
    arguments = arguments[2:]
logging.disable(logging.CRITICAL)
folder = tempfile.TemporaryDirectory()
with open(os.path.join(folder.name, "small"), "wb") as file:
    file.write(b"hello" * 20000)
with open(os.path.join(folder.name, "endless"), "wb") as file:
    file.truncate(1 << 40)
Careless.authorizer = DummyAuthorizer()
Careless.authorizer.add_anonymous(folder.name)
loop = IOLoop()
servers = [FTPServer((address, 21), Careless, ioloop=loop) for address in arguments]
print("ready", flush=True)
loop.loop()
