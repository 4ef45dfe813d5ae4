"""`write_loop.c` where there is no C compiler; the same arguments and protocol."""

import os
import socket
import sys
import time

events, rate, size, count = map(int, sys.argv[1:])
listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
print(listener.getsockname()[1], flush=True)
sockets = []
for _ in range(count):
    sock, _ = listener.accept()
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.recv(4096)
    sock.sendall(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
    sockets.append(sock)
numbers = [sock.fileno() for sock in sockets]
frame = b"\x81\x7e" + size.to_bytes(2, "big") + b"x" * size
sys.stdin.readline()
before, start = time.process_time(), time.monotonic()
for index in range(events):
    if index == events - 1:
        frame = frame[:-7] + b'~END~"}'
    if rate:
        time.sleep(max(0.0, start + (index + 1) / rate - time.monotonic()))
    for number in numbers:
        os.write(number, frame)
sys.stdin.readline()
print(time.process_time() - before, flush=True)
