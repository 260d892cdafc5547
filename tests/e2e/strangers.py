"""Bytes that nobody should send to a member's ports. Arguments: host, directory with this pair's files,
directory with another pair's. Prints one line for each attempt that was answered as if it were welcome."""

import os
import random
import socket
import ssl
import struct
import sys

HOST, OWN, OTHER = sys.argv[1:4]
SQL, REPLICATION, CONTROL, METRICS = 5432, 4444, 8443, 9090
WAIT_SECONDS = 5
noise = random.Random(7)


def connect(port):
    return socket.create_connection((HOST, port), timeout=WAIT_SECONDS)


def exchange(link, data):
    """What comes back for these bytes, until the other side closes or is silent; at most 64 KiB."""
    answer = b""
    try:
        link.sendall(data)
        while len(answer) < 65536:
            part = link.recv(4096)
            if not part:
                break
            answer += part
    except OSError:
        pass
    finally:
        link.close()
    return answer


def tls(port, files):
    context = ssl.create_default_context(cafile=os.path.join(OWN, "ca.crt"))
    if files:
        context.load_cert_chain(os.path.join(files, "tls.crt"), os.path.join(files, "tls.key"))
    return context.wrap_socket(connect(port), server_hostname=HOST)


def try_tls(port, files, data):
    try:
        return exchange(tls(port, files), data)
    except OSError:
        return b""


def unwelcome(what, answer, welcome):
    if welcome in answer:
        print(f"{what} was answered with {answer[:80]!r}")


for size in (1, 7, 64, 4096, 200_000):
    garbage = noise.randbytes(size)
    for port in (SQL, REPLICATION, CONTROL, METRICS):
        unwelcome(f"{size} random bytes on {port}", exchange(connect(port), garbage), b"200 OK")

startups = [
    struct.pack("!II", 0x7FFFFFFF, 196608),
    struct.pack("!II", 4, 196608),
    struct.pack("!II", 8, 80877102),
    struct.pack("!II", 16, 196608) + b"no zeros",
]
for startup in startups:
    unwelcome(f"startup {startup!r}", exchange(connect(SQL), startup), b"Z\0\0\0\5")

request = b"GET /v1/status HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
for port in (REPLICATION, CONTROL):
    for whose, files in (("no", None), ("another pair's", OTHER)):
        answer = try_tls(port, files, request)
        if answer:
            print(f"{whose} certificate on {port} was answered with {answer[:80]!r}")

# The right certificate is let in: otherwise the attempts above and below would prove nothing.
tls(REPLICATION, OWN).close()
if not try_tls(CONTROL, OWN, request).startswith(b"HTTP/1.1 "):
    print("the right certificate was not answered on the control port")

# With the right certificate, and then frames and requests that no member sends.
for data in (noise.randbytes(100_000), struct.pack("!I", 0xFFFFFFFF) + b"x" * 100, b"\0" * 5000):
    unwelcome("a malformed frame", try_tls(REPLICATION, OWN, data), b"200 OK")
    unwelcome("a malformed request", try_tls(CONTROL, OWN, data), b"200 OK")
print("done")
