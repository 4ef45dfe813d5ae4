"""The files with which systemd runs the daemon as a service: unit, socket, sysusers and tmpfiles fragments. Pure text.

Hardening has one limit that isn't ours to choose: what the daemon may not do, no agent may. So agents keep the network, may
start programs, and may map memory writable and executable (MemoryDenyWriteExecute would stop every JIT, Node's included);
everything else that systemd can take away is taken. For what is left see ``systemd-analyze security --offline=true``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

#: What the service is called, and its user.
NAME = "agentstream"

_UNIT = """\
# agentstream as a system service. Written by `agentstream systemd unit`; change it with `systemctl edit agentstream`.
[Unit]
Description=agentstream: coding agents as a service
Documentation=man:systemd.service(5)
After=network-online.target
Wants=network-online.target
StartLimitIntervalSec=300
StartLimitBurst=5

[Service]
Type=notify
NotifyAccess=main
ExecStart={command} serve --config {config} --data-dir /var/lib/agentstream{roots}
ExecReload=/bin/kill -HUP $MAINPID
# The daemon stops its runs by itself; what is left after that, and only then, is killed by systemd.
KillMode=mixed
TimeoutStartSec=60
TimeoutStopSec=45
Restart=on-failure
RestartSec=2
WatchdogSec=30
# cgroup v2: the daemon makes a group below its own for each run. ProtectControlGroups would forbid it.
Delegate=yes
OOMPolicy=continue
User=agentstream
Group=agentstream
StateDirectory=agentstream
StateDirectoryMode=0700
RuntimeDirectory=agentstream
UMask=0077
LimitNOFILE=65536
Environment=HOME=/var/lib/agentstream XDG_STATE_HOME=/var/lib

# What neither the daemon nor an agent may do.
NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
ProtectSystem=strict
ProtectHome=tmpfs
{paths}PrivateTmp=yes
PrivateDevices=yes
DevicePolicy=closed
ProtectClock=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
PrivateUsers=yes
RemoveIPC=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RestrictNamespaces=yes
LockPersonality=yes
KeyringMode=private
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources @mount @swap @reboot @raw-io @module @debug @cpu-emulation @obsolete @clock
SystemCallErrorNumber=EPERM

[Install]
WantedBy=multi-user.target
"""

_SOCKET = """\
# Socket activation: systemd listens, and starts the daemon for the first connection.
[Unit]
Description=agentstream's socket

[Socket]
ListenStream={listen}
FileDescriptorName=agentstream
Backlog=4096

[Install]
WantedBy=sockets.target
"""

_SYSUSERS = """\
# systemd-sysusers: the user that the daemon and its agents run as.
u agentstream - "agentstream daemon" /var/lib/agentstream /usr/sbin/nologin
"""

_TMPFILES = """\
# systemd-tmpfiles: the data directory (journal, raw logs, tokens) is the daemon's alone.
d /var/lib/agentstream 0700 agentstream agentstream -
d /etc/agentstream 0755 root root -
f /etc/agentstream/config.toml 0640 root agentstream -
"""


def unit(*, command: str, config: Path, workspace_roots: Sequence[Path]) -> str:
    """The service unit. ``command`` is the absolute path of the ``agentstream`` program."""
    roots = "".join(f" --workspace-root {_quoted(root)}" for root in workspace_roots)
    # Below /home and /root, which are hidden, a root has to be bound into view; elsewhere to be made writable.
    paths = "".join(
        f"{'BindPaths' if root.is_relative_to('/home') or root.is_relative_to('/root') else 'ReadWritePaths'}={_quoted(root)}\n"
        for root in workspace_roots
    )
    return _UNIT.format(command=_quoted(command), config=_quoted(config), roots=roots, paths=paths)


def socket_unit(listen: str) -> str:
    """The socket unit; ``listen`` is ``ADDRESS:PORT`` or the path of a Unix socket."""
    return _SOCKET.format(listen=listen)


def sysusers() -> str:
    """The sysusers.d fragment."""
    return _SYSUSERS


def tmpfiles() -> str:
    """The tmpfiles.d fragment."""
    return _TMPFILES


def files(service: str, socket: str | None) -> dict[str, str]:
    """Path below the root of the file system -> content, of all that ``agentstream systemd install`` writes."""
    found = {
        f"etc/systemd/system/{NAME}.service": service,
        f"etc/sysusers.d/{NAME}.conf": sysusers(),
        f"etc/tmpfiles.d/{NAME}.conf": tmpfiles(),
    }
    if socket is not None:
        found[f"etc/systemd/system/{NAME}.socket"] = socket
    return found


def _quoted(value: object) -> str:
    """One word of a unit's command line: % is systemd's own sign, and spaces need quotes."""
    text = str(value).replace("%", "%%")
    return f'"{text}"' if " " in text else text
