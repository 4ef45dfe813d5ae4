"""Commands that work on this machine's settings and data directory: serve, token, config."""

from __future__ import annotations

import gc
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, cast

import click
import orjson
import trio

from agentstream import config
from agentstream.agents.registry import ADAPTERS
from agentstream.cli import shell
from agentstream.cli.text import one_line
from agentstream.server.principal import INCLUDED_SCOPES, Scope
from agentstream.server.tokens import TokenStore, prepare_data_dir
from agentstream.settings import Settings, check_exposure, show

_config_option = click.option(
    "--config", "config_file", type=click.Path(exists=True, dir_okay=False), help="Settings (TOML)."
)
_data_dir_option = click.option("--data-dir", type=click.Path(file_okay=False), help="Journal, raw logs, tokens.")


def _load(config_file: str | None, overrides: dict[str, Any]) -> Settings:
    settings = config.load(overrides, toml_path=config_file)
    config.check_agents(settings, ADAPTERS)
    config.check_extras(settings)
    check_exposure(settings.server)
    return settings


@click.command()
@_config_option
@click.option("--host", help="Address to listen on. [default: 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), help="TCP port; 0 picks a free one. [default: 7171]")
@click.option("--unix", type=click.Path(), help="Unix socket to listen on instead.")
@_data_dir_option
@click.option(
    "--workspace-root",
    "workspace_roots",
    multiple=True,
    type=click.Path(exists=True, file_okay=False),
    help="Agents may work below it; may be given several times. [default: the current directory]",
)
@click.option("--no-auth", is_flag=True, help="Ask for no token; on loopback or a Unix socket only.")
@click.option(
    "--behind-proxy",
    is_flag=True,
    help="A reverse proxy in front does TLS, and appends X-Forwarded-For; it is believed.",
)
@click.option("--demo", is_flag=True, help="Submit a demo work order and print its events.")
def serve(
    config_file: str | None,
    host: str | None,
    port: int | None,
    unix: str | None,
    data_dir: str | None,
    workspace_roots: tuple[str, ...],
    no_auth: bool,
    behind_proxy: bool,
    demo: bool,
) -> None:
    """Run the daemon. Prints "listening on http://HOST:PORT" once it accepts."""
    shell.use_any_output()
    with shell.clear_errors():
        flags = {
            "server.host": host,
            "server.port": port,
            "server.unix": unix,
            "server.data_dir": data_dir,
            "server.auth": False if no_auth else None,
            "server.behind_proxy": behind_proxy or None,
            "runs.workspace_roots": workspace_roots or None,
        }
        load = partial(_load, config_file, flags)
        settings = load()
        # Here, since the other commands need neither the web framework nor the journal and start in half the time without.
        # Sixty thousand objects that stay for good: not looked at while they are made, nor in the months to come.
        gc.disable()
        from agentstream import daemon
        from agentstream.cli import demo as demo_run
        from agentstream.collector import short_collections

        gc.enable()

        async def listening(where: daemon.Listening) -> None:
            demo_run.say_listening(where)
            if demo:
                await demo_run.show(where)

        with short_collections():
            trio.run(partial(daemon.serve, settings, load=load, on_listening=listening))


# --- config ----------------------------------------------------------------------------------------------------------


@click.group("config")
def config_group() -> None:
    """Look at the settings: file, then AGENTSTREAM_*, then flags."""


@config_group.command()
@_config_option
def check(config_file: str | None) -> None:
    """Say whether the daemon would start with these settings."""
    with shell.clear_errors():
        _load(config_file, {})
    click.echo("the settings are right")


@config_group.command("show")
@_config_option
@click.option("--json", "as_json", is_flag=True, help="As JSON, for programs.")
def show_settings(config_file: str | None, as_json: bool) -> None:
    """Print each setting, its value, and where that comes from."""
    with shell.clear_errors():
        settings = config.load(toml_path=config_file)
    for item in show(settings):
        value = orjson.dumps(item.value, default=_plain).decode()
        if as_json:
            line = {"name": item.name, "value": item.value, "origin": item.origin, "help": item.help}
            click.echo(orjson.dumps(line, default=_plain).decode())
        else:
            click.echo(f"{item.name} = {one_line(value, 500)}  # {one_line(item.origin, 500)}")


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else list(value) if isinstance(value, tuple) else dict(value)


# --- token -----------------------------------------------------------------------------------------------------------


@click.group(invoke_without_command=True)
@_data_dir_option
@click.pass_context
def token(context: click.Context, data_dir: str | None) -> None:
    """Print this machine's own token; or create, list and revoke tokens.

    Works on the data directory, whether the daemon runs or not; a running one heeds it at once.
    """
    with shell.clear_errors():
        # A workspace root that plays no part here, since without one / is refused as the current directory.
        settings = config.load({"server.data_dir": data_dir, "runs.workspace_roots": (".",)})
        directory = settings.server.data_dir
        prepare_data_dir(directory)
    store = context.obj = TokenStore(directory)
    if context.invoked_subcommand is not None:
        return
    with shell.clear_errors():
        store.ensure_first()
        try:
            click.echo((directory / "token").read_text(encoding="ascii").strip())
        except FileNotFoundError:
            raise click.ClickException(
                f"{directory / 'token'} is gone (revoked?); make another token: agentstream token create NAME --scope admin"
            ) from None


@token.command()
@click.argument("name")
@click.option(
    "--scope", type=click.Choice(list(INCLUDED_SCOPES)), default="read", show_default=True, help="What it allows."
)
@click.option("--days", type=click.FloatRange(min=0, min_open=True), help="It expires after so many. [default: never]")
@click.pass_obj
def create(store: TokenStore, name: str, scope: str, days: float | None) -> None:
    """Make a token and print it: the only time that anybody sees it."""
    with shell.clear_errors():
        store.ensure_first()
        expires_at = None if days is None else datetime.now(UTC) + timedelta(days=days)
        click.echo(store.create(name, cast("Scope", scope), expires_at=expires_at))


@token.command("list")
@click.pass_obj
def list_tokens(store: TokenStore) -> None:
    """List the tokens: name, scope, when made, until when valid."""
    with shell.clear_errors():
        for item in store.tokens():
            until = f"until {item.expires_at:%Y-%m-%d %H:%M} UTC" if item.expires_at else "for ever"
            click.echo(f"{item.name:<20} {item.scope:<8} made {item.created_at:%Y-%m-%d %H:%M} UTC  valid {until}")


@token.command()
@click.argument("name")
@click.pass_obj
def revoke(store: TokenStore, name: str) -> None:
    """Make a token worthless, at once."""
    with shell.clear_errors():
        store.revoke(name)
