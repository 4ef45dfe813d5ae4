"""``agentstream systemd``: what is printed and written is what systemd accepts."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from agentstream.cli import main, system

ANALYZE = shutil.which("systemd-analyze")
needs_systemd = pytest.mark.skipif(ANALYZE is None, reason="needs systemd-analyze (Debian's package systemd)")


def invoke(*args: str) -> Result:
    return CliRunner().invoke(main, ["systemd", *args], catch_exceptions=False)


def test_the_unit_is_printed_with_what_was_asked_for(tmp_path: Path) -> None:
    result = invoke("unit", "--workspace-root", "/srv/a", "--workspace-root", "/srv/b", "--config", "/etc/other.toml")
    assert result.exit_code == 0
    assert " serve --config /etc/other.toml " in result.stdout
    assert "ReadWritePaths=/srv/a\nReadWritePaths=/srv/b\n" in result.stdout


def test_the_socket_unit_needs_no_root() -> None:
    result = invoke("unit", "--socket", "/run/agentstream.sock")
    assert (result.exit_code, "ListenStream=/run/agentstream.sock\n" in result.stdout) == (0, True)


@pytest.mark.parametrize("command", ["unit", "install"])
def test_a_service_must_be_told_where_agents_may_work(command: str) -> None:
    result = invoke(command)
    assert result.exit_code == 2
    assert "--workspace-root" in result.output


@needs_systemd
def test_what_is_installed_is_accepted_by_systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/usr/bin/true"])
    result = invoke("install", "--workspace-root", "/srv/work", "--socket", "127.0.0.1:7171", "--root", str(tmp_path))
    assert result.exit_code == 0
    assert "systemctl enable --now agentstream.socket" in result.output
    units = tmp_path / "etc/systemd/system"
    for name in ("agentstream.service", "agentstream.socket"):
        assert ANALYZE is not None
        done = subprocess.run([ANALYZE, "verify", units / name], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
    users = tmp_path / "etc/sysusers.d/agentstream.conf"
    fragments = tmp_path / "etc/tmpfiles.d/agentstream.conf"
    assert users.exists()
    assert fragments.exists()
    if sysusers := shutil.which("systemd-sysusers"):
        done = subprocess.run(
            [sysusers, "--dry-run", f"--root={tmp_path}"], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr


def test_the_socket_unit_is_only_written_when_asked_for(tmp_path: Path) -> None:
    assert invoke("install", "--workspace-root", "/srv/work", "--root", str(tmp_path)).exit_code == 0
    assert [path.name for path in (tmp_path / "etc/systemd/system").iterdir()] == ["agentstream.service"]


@pytest.mark.skipif(os.geteuid() != 0, reason="changes its user, which only root may")
def test_who_is_not_root_is_told_so() -> None:
    # Imported before: Python itself may be where only root may read.
    code = (
        "import os; from agentstream.cli import main; import agentstream.cli.system; "
        "os.setgid(65534); os.setuid(65534); main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "systemd", "install", "--workspace-root", "/srv/work"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (
        1,
        "Error: writing to /etc needs root: sudo, or --root DIR to write somewhere else\n",
    )


def test_a_program_in_a_home_is_out_of_the_services_sight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "base_prefix", "/usr")
    assert system._out_of_sight("/opt/agentstream/bin/agentstream") is None
    assert "/home/me/.local/bin/agentstream" in (system._out_of_sight("/home/me/.local/bin/agentstream") or "")
