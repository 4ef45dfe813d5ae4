"""Tokens: who holds one may do what its scope says. Kept hashed in ``DIR/tokens.json``.

A token is 256 random bits, so its plain SHA-256 is enough: slow hashes (scrypt, argon2) make guessing *passwords* dear, and nobody
guesses 2**256; here one would only let a stranger burn our CPU with every wrong token. A token is shown once, when it is made.

The first token of a data directory, an administrator's, is also written to ``DIR/token`` (mode 0600), where the command line of
the same user finds it. Whoever can write in the directory could add tokens, so one that others can write in is refused.

The file is the only truth: ``agentstream token`` changes it under a lock while the daemon runs, and the daemon looks at its inode
and mtime each time a token is shown (2 us; a revoked token must not live until a reload that somebody forgets).
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import hmac
import os
import re
import secrets
import stat
from collections.abc import Callable, Hashable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import attrs
import orjson

from agentstream.errors import ConfigError, Conflict, InvalidMessage, NotFound
from agentstream.model import wire
from agentstream.server.principal import INCLUDED_SCOPES, Principal, Scope

#: Lets secret scanners, and people, recognize one.
PREFIX: Final = "agentstream_"
#: The name of the token that is made at the first start.
FIRST: Final = "local"
#: Longer texts are no tokens of ours, and are not hashed. In characters.
_MAX_TOKEN: Final = 256
#: The caller of a daemon that runs with ``--no-auth``.
ANYBODY: Final = Principal(INCLUDED_SCOPES["admin"], "anybody")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@attrs.frozen(kw_only=True)
class Token:
    """One token as it is kept: everything but itself."""

    name: str
    scope: Scope
    #: Hexadecimal SHA-256 of the token.
    sha256: str = attrs.field(repr=False)
    created_at: datetime
    expires_at: datetime | None = None


@attrs.frozen(kw_only=True)
class _File:
    version: int
    tokens: list[Token]


def utc_now() -> datetime:
    """The wall clock."""
    return datetime.now(UTC)


def prepare_data_dir(path: Path) -> None:
    """Make the data directory (mode 0700), or check that it is ours alone to write in. Raises `ConfigError`."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = path.stat()
    except OSError as error:
        raise ConfigError(f"{path}: can't be the data directory: {error.strerror or error}") from error
    if status.st_uid != os.geteuid():
        raise ConfigError(f"{path} belongs to another user, who could add tokens to it; name another --data-dir")
    if status.st_mode & 0o022:
        raise ConfigError(
            f"others can write in {path}, and so add tokens to it; chmod go-w it, or name another --data-dir"
        )


class TokenStore:
    """The tokens of one data directory; an `Authenticator`. ``auth`` False (``--no-auth``): whoever comes may do everything."""

    def __init__(self, data_dir: Path, *, auth: bool = True, now: Callable[[], datetime] = utc_now) -> None:
        self._auth = auth
        self._dir = data_dir
        self._path = data_dir / "tokens.json"
        self._now = now
        self._seen: tuple[int, int, int] | None = None
        self._tokens: list[Token] = []
        self._trouble: str | None = None

    @property
    def trouble(self) -> str | None:
        """Why the file can't be read, if it can't; the tokens that were last read stay valid meanwhile."""
        return self._trouble

    def ensure_first(self) -> bool:
        """At the first start of a data directory, make its administrator's token; True if that was now.

        The plain file is written before the hash: after a crash in between, the next start takes up the file that is there.
        Raises `ConfigError` when ``tokens.json`` can't be read, or when ``DIR/token`` is there but not ours alone.
        """
        with self._locked():
            if self._path.exists():
                self._read()
                return False
            plain = self._dir / "token"
            try:
                _write_new(plain, PREFIX + secrets.token_urlsafe(32) + "\n")
            except FileExistsError:
                _check_private(plain)
            text = plain.read_text(encoding="ascii").strip()
            if len(text) < 32:
                raise ConfigError(f"{plain} holds no token; remove it, and a new one is made")
            self._write([Token(name=FIRST, scope="admin", sha256=_hash(text), created_at=self._now())])
            return True

    def token(self, text: str) -> Principal | None:
        """The caller that ``text`` belongs to; None for an unknown, revoked or expired token.

        Every token is compared, in constant time, so that the time taken tells neither which one nor how much of it was right.
        """
        self._refresh()
        if len(text) > _MAX_TOKEN or not text.isascii():
            return None
        shown = _hash(text)
        found = None
        for token in self._tokens:
            if hmac.compare_digest(token.sha256, shown):
                found = token
        if found is None or self._expired(found):
            return None
        return Principal(INCLUDED_SCOPES[found.scope], found.name, found.sha256)

    def anonymous(self) -> Principal | None:
        """Who a caller without a token is; None where tokens are asked for."""
        return None if self._auth else ANYBODY

    def still(self, principal: Principal) -> bool:
        """See `Authenticator.still`."""
        if principal.proof is None:
            return not self._auth
        self._refresh()
        return any(
            token.sha256 == principal.proof
            and INCLUDED_SCOPES[token.scope] == principal.scopes
            and not self._expired(token)
            for token in self._tokens
        )

    def state(self) -> Hashable:
        """See `Authenticator.state`."""
        self._refresh()
        return self._seen, [self._expired(token) for token in self._tokens].count(True)

    def tokens(self) -> list[Token]:
        """All tokens, also expired ones, in the order in which they were made. Raises `ConfigError` if they can't be read."""
        self._read()
        return list(self._tokens)

    def create(self, name: str, scope: Scope, *, expires_at: datetime | None = None) -> str:
        """Make a token and return it: the only time that anybody sees it.

        ``name``: letters, digits and ``._-``, at most 64. Raises `InvalidMessage`, or `Conflict` for a name that is taken.
        """
        if not _NAME.fullmatch(name):
            raise InvalidMessage(f"{name!r}: expected a name of letters, digits and ._-, at most 64")
        if scope not in INCLUDED_SCOPES:
            raise InvalidMessage(f"{scope!r}: expected a scope, one of {', '.join(INCLUDED_SCOPES)}")
        if expires_at is not None and expires_at <= self._now():
            raise InvalidMessage("the token would have expired already")
        text = PREFIX + secrets.token_urlsafe(32)
        with self._locked():
            self._read()
            if any(token.name == name for token in self._tokens):
                raise Conflict(f"there is a token named {name}; revoke it first, or choose another name")
            made = Token(name=name, scope=scope, sha256=_hash(text), created_at=self._now(), expires_at=expires_at)
            self._write([*self._tokens, made])
        return text

    def revoke(self, name: str) -> None:
        """Make a token worthless, at once. Raises `NotFound`."""
        with self._locked():
            self._read()
            gone = next((token for token in self._tokens if token.name == name), None)
            if gone is None:
                raise NotFound(f"no token named {name}")
            self._write([token for token in self._tokens if token is not gone])
            plain = self._dir / "token"
            if plain.exists() and hmac.compare_digest(_hash(plain.read_text(encoding="utf-8").strip()), gone.sha256):
                plain.unlink()

    def _expired(self, token: Token) -> bool:
        return token.expires_at is not None and token.expires_at <= self._now()

    # --- the file ---------------------------------------------------------------------------------------------------

    def _refresh(self) -> None:
        try:
            if self._signature() == self._seen:
                return
            self._read()
        except ConfigError as error:
            # Half an edit by hand must neither lock everybody out nor stop the daemon; health tells.
            self._trouble = error.message
        else:
            self._trouble = None

    def _signature(self) -> tuple[int, int, int] | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return (status.st_ino, status.st_mtime_ns, status.st_size)

    def _read(self) -> None:
        signature = self._signature()
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            self._tokens, self._seen = [], None
            return
        except OSError as error:
            raise ConfigError(f"{self._path}: {error.strerror or error}") from error
        try:
            self._tokens = wire.structure(wire.json_object(data), _File).tokens
        except Exception as error:
            raise ConfigError(
                f"{self._path} is damaged ({error}); mend it, or remove it and {self._dir / 'token'}"
            ) from error
        self._seen = signature

    def _write(self, tokens: list[Token]) -> None:
        content: dict[str, Any] = wire.to_dict(_File(version=1, tokens=tokens))
        temporary = self._dir / f".tokens.{os.getpid()}"
        temporary.unlink(missing_ok=True)
        _write_new(temporary, orjson.dumps(content, option=orjson.OPT_INDENT_2).decode() + "\n")
        temporary.replace(self._path)
        _sync_directory(self._dir)
        self._tokens, self._seen = tokens, self._signature()

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        # Only writers lock: readers see the old file or the new one, never half of one.
        handle = os.open(self._dir / ".tokens.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


def _write_new(path: Path, text: str) -> None:
    """Write a file that did not exist, mode 0600 whatever the umask is, and see it on the disk."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _check_private(path: Path) -> None:
    status = path.lstat()
    if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise ConfigError(f"{path} is not a file of this user alone (mode 0600), so its token may be known; remove it")


def _sync_directory(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
