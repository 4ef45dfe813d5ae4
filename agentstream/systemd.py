"""Talking to systemd: readiness, status, watchdog and handed-over sockets. Without systemd every call does nothing.

The protocol is a datagram of ``KEY=value`` lines to the Unix socket in ``NOTIFY_SOCKET`` (sd_notify(3)); sockets come as file
descriptors from 3 on, counted by ``LISTEN_FDS`` for the process ``LISTEN_PID`` (sd_listen_fds(3)). A few lines each, so no library.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping
from typing import Final

import trio

#: The first file descriptor that systemd hands over (SD_LISTEN_FDS_START).
_FIRST_FD: Final = 3


class Notifier:
    """Our side of ``NOTIFY_SOCKET``. ``environ`` is the daemon's own environment."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        # "@" stands for the NUL byte that begins an abstract socket's name.
        self._address = "\0" + address[1:] if address.startswith("@") else address
        microseconds = environ.get("WATCHDOG_USEC", "")
        for_us = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        #: How often systemd wants to hear of us, in seconds; None: never.
        self.watchdog_seconds = int(microseconds) / 1e6 if for_us and microseconds.isdigit() else None

    def send(self, **fields: str) -> None:
        """Send ``KEY=value`` lines. Never raises: who can't tell systemd goes on working."""
        if not self._address:
            return
        text = "\n".join(f"{key}={value}" for key, value in fields.items())
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.setblocking(False)
                sock.sendto(text.encode(), self._address)
        except OSError:
            return

    def ready(self, status: str) -> None:
        """The daemon accepts connections (also after a reload)."""
        self.send(READY="1", STATUS=status)

    def status(self, status: str) -> None:
        """One line for ``systemctl status``."""
        self.send(STATUS=status)

    def reloading(self) -> None:
        """A reload begins; `ready` ends it."""
        self.send(RELOADING="1", MONOTONIC_USEC=str(time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000))

    def stopping(self, status: str, seconds: float) -> None:
        """The daemon is on its way out, for at most so long, whatever TimeoutStopSec says; a shorter time takes none away."""
        self.send(STOPPING="1", STATUS=status, EXTEND_TIMEOUT_USEC=str(int(seconds * 1e6)))

    async def watch(self, status: Callable[[], str]) -> None:
        """Feed the watchdog at half its interval, with a status line.

        Runs on the event loop: a loop that hangs feeds nothing, and systemd restarts the daemon.
        """
        interval = (self.watchdog_seconds or 20.0) / 2
        while True:
            self.send(WATCHDOG="1", STATUS=status())
            await trio.sleep(interval)


def handed_over(environ: Mapping[str, str]) -> list[socket.socket]:
    """The listening sockets that systemd opened for us (socket activation); empty without."""
    if environ.get("LISTEN_PID") != str(os.getpid()) or not environ.get("LISTEN_FDS", "").isdigit():
        return []
    found: list[socket.socket] = []
    for fd in range(_FIRST_FD, _FIRST_FD + int(environ["LISTEN_FDS"])):
        os.set_inheritable(fd, False)
        found.append(socket.socket(fileno=fd))
    return found
