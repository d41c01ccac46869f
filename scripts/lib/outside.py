"""The outside world of a private Docker host: a DNS server, and TCP and UDP services to be reached.

usage: outside.py DNS4 DNS6 NET4 NET6

All four answer names on port 53 (UDP and TCP): `outside.test` is NET4 and NET6; any other name does not exist. DNS4 and
DNS6 are the resolvers that the host's containers are given, NET4 and NET6 are resolvers nobody told them of.
NET4 and NET6 (and every other address here) accept TCP on 80, 443 and 5432, saying who called, and echo UDP on 123.
Prints `ready` when all of that is listening.
"""

import asyncio
import socket
import struct
import sys

A, AAAA = 1, 28


def answer(query, names):
    """The reply to one DNS query, in the format of RFC 1035 section 4; None for what is no query."""
    if len(query) < 17 or query[2] & 0x80:
        return None
    end, labels = 12, []
    while end < len(query) and query[end]:
        labels.append(query[end + 1 : end + 1 + query[end]].decode("ascii", "replace").lower())
        end += 1 + query[end]
    question = query[12 : end + 5]
    if len(question) < 5:
        return None
    (kind,) = struct.unpack("!H", question[-4:-2])
    known = names.get(".".join(labels))
    data = [known[kind]] if known and kind in known else []
    flags = 0x8580 | (0 if known else 3)
    head = query[:2] + struct.pack("!HHHHH", flags, 1, len(data), 0, 0)
    return head + question + b"".join(
        b"\xc0\x0c" + struct.pack("!HHIH", kind, 1, 5, len(item)) + item for item in data
    )


class DnsOverUdp(asyncio.DatagramProtocol):
    def __init__(self, names):
        self.names = names

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, peer):
        reply = answer(data, self.names)
        if reply:
            self.transport.sendto(reply, peer)


class Echo(asyncio.DatagramProtocol):
    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, peer):
        self.transport.sendto(data, peer)


async def greet(reader, writer):
    try:
        # HTTP clients get HTTP; whoever only connects gets the connection.
        await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
        body = f"outside, called by {writer.get_extra_info('peername')[0]}\n".encode()
        writer.write(b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        await writer.drain()
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, asyncio.TimeoutError, OSError):
        pass
    finally:
        writer.close()


async def main(dns4, dns6, net4, net6):
    names = {"outside.test": {A: socket.inet_pton(socket.AF_INET, net4), AAAA: socket.inet_pton(socket.AF_INET6, net6)}}

    async def dns_over_tcp(reader, writer):
        try:
            (size,) = struct.unpack("!H", await reader.readexactly(2))
            reply = answer(await reader.readexactly(size), names)
            if reply:
                writer.write(struct.pack("!H", len(reply)) + reply)
                await writer.drain()
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            writer.close()

    loop = asyncio.get_running_loop()
    for address in (dns4, dns6, net4, net6):
        await loop.create_datagram_endpoint(lambda: DnsOverUdp(names), local_addr=(address, 53))
        await asyncio.start_server(dns_over_tcp, address, 53)
    for address in (net4, net6):
        await loop.create_datagram_endpoint(Echo, local_addr=(address, 123))
    for port in (80, 443, 5432):
        await asyncio.start_server(greet, None, port)
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    asyncio.run(main(*sys.argv[1:]))
