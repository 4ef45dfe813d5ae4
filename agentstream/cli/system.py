"""``agentstream systemd``: the files with which systemd runs the daemon, printed or put in their places."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import click

from agentstream.cli import shell
from agentstream.systemd_unit import NAME, files, socket_unit, unit

#: What the service can't see: the unit hides the homes.
_HIDDEN = ("/home", "/root", "/run/user")
_roots_option = click.option(
    "--workspace-root",
    "workspace_roots",
    multiple=True,
    type=click.Path(file_okay=False, path_type=Path, resolve_path=True),
    help="Agents may work below it, and write nowhere else; may be given several times.",
)
_config_option = click.option(
    "--config",
    "config_file",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path(f"/etc/{NAME}/config.toml"),
    show_default=True,
    help="Settings (TOML).",
)
_socket_option = click.option(
    "--socket", "listen", metavar="ADDRESS", help="Socket activation: ADDRESS:PORT or the path of a Unix socket."
)


@click.group()
def systemd() -> None:
    """Run the daemon as a service of systemd."""


@systemd.command("unit")
@_roots_option
@_config_option
@_socket_option
def print_unit(workspace_roots: tuple[Path, ...], config_file: Path, listen: str | None) -> None:
    """Print the service unit; with --socket the socket unit."""
    if listen is not None:
        click.echo(socket_unit(listen), nl=False)
        return
    _require(workspace_roots)
    command = _command()
    if trouble := _out_of_sight(command):
        click.echo(f"Warning: {trouble}", err=True)
    click.echo(unit(command=command, config=config_file, workspace_roots=workspace_roots), nl=False)


@systemd.command()
@_roots_option
@_config_option
@_socket_option
@click.option(
    "--root",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("/"),
    help="Write below this directory instead of /, for a package or an image.",
)
def install(workspace_roots: tuple[Path, ...], config_file: Path, listen: str | None, root: Path) -> None:
    """Write the unit, and the fragments that make its user and its directories."""
    _require(workspace_roots)
    command = _command()
    live = root.resolve() == Path("/")
    if live and os.geteuid() != 0:
        raise click.ClickException("writing to /etc needs root: sudo, or --root DIR to write somewhere else")
    if live and (trouble := _out_of_sight(command)):
        raise click.ClickException(trouble)
    service = unit(command=command, config=config_file, workspace_roots=workspace_roots)
    with shell.clear_errors():
        for name, text in files(service, socket_unit(listen) if listen is not None else None).items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            click.echo(f"wrote {path}")
    what = f"{NAME}.socket" if listen is not None else f"{NAME}.service"
    click.echo("next:")
    for step in (
        f"systemd-sysusers {NAME}.conf",
        f"systemd-tmpfiles --create {NAME}.conf",
        *(f"let the user {NAME} write in {path}" for path in workspace_roots),
        "systemctl daemon-reload",
        f"systemctl enable --now {what}",
        f"sudo -u {NAME} {command} token --data-dir /var/lib/{NAME}",
    ):
        click.echo(f"  {step}")


def _require(workspace_roots: tuple[Path, ...]) -> None:
    # A service has no current directory that could be the default, and can write only where its unit lets it.
    if not workspace_roots:
        raise click.UsageError("name with --workspace-root where agents may work; may be given several times")


def _command() -> str:
    """The program that the service is to start: this one."""
    return str(Path(shutil.which(sys.argv[0]) or shutil.which(NAME) or sys.argv[0]).absolute())


def _out_of_sight(command: str) -> str | None:
    """Why the service could not start this program, if so."""
    for path in (command, os.path.realpath(command), sys.base_prefix):
        if any(Path(path).is_relative_to(hidden) for hidden in _HIDDEN):
            return (
                f"{path} is below a home directory, which the service does not see; install {NAME} elsewhere, such as in a "
                f"virtual environment below /opt/{NAME} made by the system's own Python"
            )
    return None
