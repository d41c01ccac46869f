"""An FTP client (ftplib) for tests.

client.py get ADDRESS passive|active        prints how many bytes `small` has, or what failed
client.py named ADDRESS THIRD PORT          has the server send `small` to somebody else's port; prints its answer
client.py led ADDRESS                       connects to whatever address the server names; prints as get does
client.py slow ADDRESS passive|active       reads `endless` slowly, prints how many bytes so far, five times a second;
                                            a line of input ends the control connection
"""
import ftplib
import select
import sys
import time

PATIENCE = 4


def connected(address):
    ftp = ftplib.FTP(timeout=PATIENCE)
    ftp.connect(address, 21)
    ftp.login()
    return ftp


def get(address, mode, is_led=False):
    ftp = connected(address)
    ftp.set_pasv(mode == "passive")
    ftp.trust_server_pasv_ipv4_address = is_led
    got = bytearray()
    ftp.retrbinary("RETR small", got.extend)
    print(len(got))


def named(address, third, port):
    ftp = connected(address)
    (ftp.sendeprt if ":" in third else ftp.sendport)(third, int(port))
    print(ftp.sendcmd("RETR small"))


def slow(address, mode):
    ftp = connected(address)
    ftp.set_pasv(mode == "passive")
    data = ftp.transfercmd("RETR endless")
    data.setblocking(False)
    total, said = 0, 0
    while True:
        readable, _, _ = select.select([data] if data else [], [], [], 0.002)
        if readable:
            time.sleep(0.002)
            try:
                got = len(data.recv(1 << 15))
            except OSError:
                got = 0
            total += got
            data = data if got else None
        if time.monotonic() - said > 0.2:
            said = time.monotonic()
            print(total, flush=True)
        if select.select([sys.stdin], [], [], 0)[0]:
            if not sys.stdin.readline():
                return
            ftp.close()


command, *rest = sys.argv[1:]
try:
    if command == "get":
        get(*rest)
    elif command == "led":
        get(*rest, "passive", True)
    elif command == "named":
        named(*rest)
    else:
        slow(*rest)
except (OSError, EOFError, ftplib.Error) as error:
    print(f"{type(error).__name__}: {error}")
