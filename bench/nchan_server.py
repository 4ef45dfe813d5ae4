"""Fan-out with nginx and its module nchan: argv is NGINX MODULE HOME EVENTS RATE SIZE CLIENTS.

The protocol is told in bench/duel.py. nginx is one process, whose CPU is what counts: with parsing the requests by which the
events come in, without making them. They come over one kept-alive connection, many requests at a time (pipelining) where many
are due. HOME is a directory for its files.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bench.proc import cpu

HEAD, END = '{"type":"agent_output","content":"', '~END~"}'
#: Requests that are sent before their answers are read: fewer bytes than sockets take, so that neither side waits for the other.
PIPELINED = 50
#: Events that nchan keeps for subscribers that are not there yet or behind; a burst must fit.
BUFFER = 5000
PR_SET_PDEATHSIG = 1
REFUSED = re.compile(rb"HTTP/1.1 [345]")
CONFIG = """
load_module {module};
{user}
daemon off;
master_process off;
pid {home}/pid;
error_log stderr crit;
worker_rlimit_nofile 8192;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    keepalive_requests 100000000;
    client_body_temp_path {home}/body;
    proxy_temp_path {home}/proxy;
    fastcgi_temp_path {home}/fastcgi;
    uwsgi_temp_path {home}/uwsgi;
    scgi_temp_path {home}/scgi;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location = /ws {{
            nchan_subscriber websocket;
            nchan_channel_id bench;
            nchan_subscriber_first_message newest;
        }}
        location = /publish {{
            nchan_publisher;
            nchan_channel_id bench;
            nchan_message_buffer_length {buffer};
        }}
    }}
}}
"""


def started(nginx: str, module: str, home: Path, port: int) -> subprocess.Popen[bytes]:
    """nginx, once it listens. It ends with us, however that is."""
    home.mkdir(exist_ok=True)
    config = home / "nginx.conf"
    # Started by root it would change to a user who can't read its files here.
    user = "user root;" if os.geteuid() == 0 else ""
    config.write_text(CONFIG.format(module=module, user=user, home=home, port=port, buffer=BUFFER))
    libc = ctypes.CDLL(None)
    process = subprocess.Popen(
        [nginx, "-p", str(home), "-e", "stderr", "-c", str(config)],
        preexec_fn=lambda: libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL),
    )
    for _ in range(500):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            if process.poll() is not None:
                break
            time.sleep(0.02)
        else:
            return process
    raise RuntimeError("nginx does not listen")


def publish(connection: socket.socket, texts: Sequence[bytes]) -> None:
    """Send them, and wait until all are answered."""
    for at in range(0, len(texts), PIPELINED):
        some = texts[at : at + PIPELINED]
        connection.sendall(
            b"".join(
                [b"POST /publish HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(one), one) for one in some]
            )
        )
        answers, tail = 0, b""
        while answers < len(some):
            data = tail + connection.recv(65536)
            if data == tail or REFUSED.search(data):
                raise RuntimeError(f"nchan refused an event: {data!r}")
            # 201 where somebody listens, 202 where nobody does. What may be cut is looked at again; a whole one is longer.
            answers += data.count(b"HTTP/1.1 20")
            tail = data[-len(b"HTTP/1.1 2") :]


def main(nginx: str, module: str, home: Path, events: int, rate: int, size: int) -> None:
    """Serve until told to stop."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = started(nginx, module, home, port)
    texts = []
    for index in range(events):
        end = END if index == events - 1 else '"}'
        texts.append((HEAD + "x" * (size - len(HEAD) - len(end)) + end).encode())
    connection = socket.create_connection(("127.0.0.1", port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    print(port, flush=True)
    sys.stdin.readline()
    before, start, done = cpu(process.pid), time.monotonic(), 0
    while done < events:
        due = events
        if rate:
            time.sleep(max(0.0, start + (done + 1) / rate - time.monotonic()))
            due = max(done + 1, min(events, int((time.monotonic() - start) * rate)))
        publish(connection, texts[done:due])
        done = due
    sys.stdin.readline()
    print(cpu(process.pid) - before, flush=True)
    process.kill()
    process.wait()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), *map(int, sys.argv[4:7]))
