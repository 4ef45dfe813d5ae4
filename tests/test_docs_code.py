"""Every block of code in the documentation does what it says, in the order of its page.

A page is followed by a reader with a home directory, a shell environment and a daemon of their own: what one block starts, makes
or exports is there for the next one. What stands below a command is what it must print. Stand-ins: `claude` is the demo agent,
the demo agent makes no pauses, ports 443 and 7171 are free ones, and `sudo` works below a directory instead of `/`.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from websockets.sync.client import connect
from websockets.typing import Origin

from agentstream.agents.demo import program_command
from agentstream.model.messages import CLIENT_MESSAGES
from agentstream.model.wire import type_of
from tests.end_to_end.house import PATIENCE
from tests.support.schema import problems
from tests.test_docs import DOCS, PROSE, ROOT

#: Generated from docstrings and signatures, which other tests look after.
GENERATED: Final = DOCS / "reference"
BLOCK: Final = re.compile(r"^```(\w*)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
PAGES: Final = {
    str(path.relative_to(ROOT)): BLOCK.findall(path.read_text())
    for path in PROSE
    if not path.is_relative_to(GENERATED) and BLOCK.search(path.read_text())
}
#: Commands that nobody runs here, each with the reason.
NOT_RUN: Final = {
    "pip install .": "fetches what it needs from a package index; every target of the Makefile installs with pip",
    "pip install 'agentstream[otel]'": "the same",
}
QUICK_DEMO: Final = [*program_command(), "--pace=0"]
#: What these start goes on until somebody stops it.
STAYS: Final = ("agentstream serve", "make run")

SUDO: Final = """#!/bin/sh
# Not as root, and not on this machine's own files: both programs can work on the files of another one.
program=$1; shift
case $program in
    agentstream) exec agentstream "$@" --root "$HOME/root" ;;
    systemctl) exec systemctl --root="$HOME/root" $(echo "$@" | sed 's/--now//') ;;
esac
exit 1
"""
CLAUDE: Final = """#!/bin/sh
case $1 in --version) echo '2.1.197 (Claude Code)'; exit ;; esac
exec {demo} --input-format=stream-json --pace=0
"""


class Reader:
    """Somebody who follows a page. A context manager."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.address = ""
        self._daemon: subprocess.Popen[str] | None = None
        self._profile = home / "profile"
        (home / "projects" / "parser").mkdir(parents=True)
        (home / "here").mkdir()
        programs = home / "bin"
        programs.mkdir()
        for name, text in (("sudo", SUDO), ("claude", CLAUDE.format(demo=shlex.join(program_command())))):
            (programs / name).write_text(text)
            (programs / name).chmod(0o755)
        as_they_are = f"--assume-old={sys.prefix}/.usable --assume-old={sys.prefix}/.ready"
        self._env = {
            "PATH": os.pathsep.join((str(programs), str(Path(sys.executable).parent), os.environ["PATH"])),
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "AGENTSTREAM_SERVER_PORT": "0",
            "AGENTSTREAM_AGENTS": json.dumps({"demo": {"command": QUICK_DEMO}}),
            # The environment that runs this test, and only one test of all.
            "MAKEFLAGS": f"{as_they_are} -- VENV={sys.prefix} ARGS=tests/agents/test_registry.py",
        }
        self._profile.touch()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # --- a shell -------------------------------------------------------------------------------------------------------

    def _as_here(self, text: str) -> str:
        return text.replace("127.0.0.1:7171", self.address.removeprefix("http://")) if self.address else text

    def run(self, command: str, *, cwd: Path = ROOT) -> str:
        """What a command prints; what it exports is kept. It must succeed."""
        profile = shlex.quote(str(self._profile))
        done = subprocess.run(
            ["sh", "-c", f". {profile}\n{command}\nstatus=$?\nexport -p > {profile}\nexit $status"],
            cwd=cwd,
            env=self._env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE * 2,
            check=False,
        )
        assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}"
        return done.stdout

    def start(self, command: str) -> str:
        """Start a daemon instead of the one before; what it has printed when it listens."""
        self.stop()
        log = self.home / "log"
        with log.open("w") as output:
            self._daemon = subprocess.Popen(
                ["sh", "-c", f". {shlex.quote(str(self._profile))}\nexec {command}"],
                cwd=ROOT,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
        deadline = time.monotonic() + PATIENCE
        while not (found := re.search(r"^listening on (http\S+)$", log.read_text(), flags=re.MULTILINE)):
            assert self._daemon.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        self.address = found[1]
        with self._profile.open("a") as profile:
            profile.write(f"export AGENTSTREAM_URL={self.address}\n")
        return log.read_text()

    def stop(self) -> None:
        """Stop the daemon, with SIGINT as Ctrl-C does; it must end well."""
        if self._daemon is not None:
            process, self._daemon = self._daemon, None
            os.killpg(process.pid, signal.SIGINT)
            process.wait(PATIENCE)

    # --- blocks --------------------------------------------------------------------------------------------------------

    def console(self, text: str) -> None:
        """Commands after ``$``, and below each what it prints."""
        first, *rest = re.split(r"^\$ ", text, flags=re.MULTILINE)
        assert not first
        for given in rest:
            command, _, expected = given.partition("\n")
            if command in NOT_RUN:
                assert not expected
                continue
            output = self.start(command) if command.startswith(STAYS) else self.run(self._as_here(command))
            printed = output.splitlines()
            assert [line for line in self._as_here(expected).splitlines() if line not in printed] == [], output

    def python(self, text: str) -> None:
        """A program of its own; it says something."""
        quick = f'driver_for("demo", commands={{"demo": {QUICK_DEMO}}})'
        (self.home / "program.py").write_text(text.replace('driver_for("demo")', quick))
        assert self.run("python ../program.py", cwd=self.home / "here")

    def toml(self, text: str) -> None:
        """The reader's configuration from here on; the daemon would start with it."""
        path = self.home / ".config" / "agentstream" / "config.toml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        assert self.run(f"agentstream config check --config {path}") == "the settings are right\n"

    def yaml(self, text: str) -> None:
        """A job of Prometheus: each target gives metrics to somebody who has no token."""
        self.start("agentstream serve --workspace-root ~/projects")
        for job in yaml.safe_load(self._as_here(text))["scrape_configs"]:
            for target in (target for given in job["static_configs"] for target in given["targets"]):
                with urllib.request.urlopen(f"http://{target}/metrics", timeout=PATIENCE) as answer:
                    families = list(text_string_to_metric_families(answer.read().decode()))
                assert any(family.name == "agentstream_work_orders" for family in families)

    def json(self, text: str) -> None:
        """A message to the daemon, as the published schema has it."""
        document = json.loads((GENERATED / "schema.json").read_text())
        message = json.loads(text)
        kind = next(cls.__name__ for cls in CLIENT_MESSAGES if type_of(cls) == message["type"])
        schema = document["$defs"][kind]
        assert problems(message, schema, document) == []
        assert set(message) <= set(schema["properties"])

    def text(self, text: str) -> None:
        """A picture made of letters; the files that it names are there."""
        names = {path.name for path in (ROOT / "agentstream").rglob("*.py")}
        assert set(re.findall(r"\w+\.py\b", text)) <= names

    def nginx(self, text: str) -> None:
        """nginx with this in its ``http`` block: the page and a WebSocket are reached through it, by the name in there."""
        program = shutil.which("nginx", path=os.environ["PATH"] + ":/usr/sbin")
        if program is None:
            pytest.skip("needs nginx (Debian's package nginx-light)")
        self.start("agentstream serve --workspace-root ~/projects")
        name = "agents.example.org"
        certificate, key = self.home / f"{name}.pem", self.home / f"{name}.key"
        self.run(
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=test "
            f"-addext subjectAltName=DNS:{name} -keyout {key} -out {certificate}"
        )
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        here = self._as_here(text).replace("443", f"127.0.0.1:{port}").replace("/etc/ssl", str(self.home))
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        places = "".join(f"{kind}_temp_path {self.home}/{kind}; " for kind in kinds)
        own = f"daemon off; pid {self.home}/pid; events {{}} error_log stderr;"
        configuration = self.home / "nginx.conf"
        configuration.write_text(f"{own}\nhttp {{ access_log off; {places}\n{here}\n}}\n")
        self.run(f"{program} -e stderr -t -c {configuration}")
        process = subprocess.Popen([program, "-e", "stderr", "-c", str(configuration)], stderr=subprocess.DEVNULL)
        try:
            self._visit(name, port, ssl.create_default_context(cafile=str(certificate)))
        finally:
            process.terminate()
            process.wait(PATIENCE)

    def _visit(self, name: str, port: int, tls: ssl.SSLContext) -> None:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                to_proxy = socket.create_connection(("127.0.0.1", port))
                break
            except ConnectionRefusedError:
                assert time.monotonic() < deadline
                time.sleep(0.05)
        token = self.run("agentstream token").strip()
        origin = Origin(f"https://{name}")
        with connect(f"wss://{name}/ws", sock=to_proxy, ssl=tls, server_hostname=name, origin=origin) as websocket:
            websocket.send(json.dumps({"type": "auth", "token": token}))
            websocket.send(json.dumps({"type": "subscribe", "workOrderId": "*"}))
            answers = [json.loads(websocket.recv(PATIENCE))["type"] for _ in range(2)]
        assert answers == ["ok", "subscription_confirmed"]


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    with Reader(tmp_path) as reader:
        yield reader


@pytest.mark.parametrize("page", PAGES)
def test_every_block_does_what_it_says(page: str, reader: Reader) -> None:
    for language, text in PAGES[page]:
        follow = getattr(reader, language or "unnamed", None)
        assert follow is not None, f"nothing here can follow a block of {language!r}:\n{text}"
        follow(text)


def test_what_is_not_run_is_still_in_the_documentation() -> None:
    commands = {
        command
        for blocks in PAGES.values()
        for language, text in blocks
        if language == "console"
        for command in re.findall(r"^\$ (.*)$", text, flags=re.MULTILINE)
    }
    assert set(NOT_RUN) <= commands
