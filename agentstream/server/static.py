"""The page and its files, from the package.

They are read once and kept in memory (some 100 KiB): a request is a look into a table of known names, so no path, however spelt,
leads anywhere else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Final

import attrs
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

#: What a browser is given; anything else in the directory is not served.
_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".woff2": "font/woff2",
    ".webmanifest": "application/manifest+json",
}


@attrs.frozen
class _File:
    content: bytes
    media: str
    etag: str

    def answer(self, request: Request) -> Response:
        """The file, or 304 for whoever has it."""
        # Asked for each time, so that a page and its files are always of one version.
        headers = {"ETag": self.etag, "Cache-Control": "no-cache"}
        if request.headers.get("if-none-match") == self.etag:
            return Response(status_code=304, headers=headers)
        return Response(self.content, headers={**headers, "Content-Type": self.media})


def static_routes(directory: Path) -> Iterator[Route]:
    """One route for each file below ``directory``; ``index.html`` is also ``/``."""
    for path in sorted(directory.rglob("*")):
        media = _TYPES.get(path.suffix)
        if media is None or not path.is_file():
            continue
        content = path.read_bytes()
        file = _File(content, media, f'"{hashlib.sha256(content).hexdigest()[:32]}"')
        name = "/" + path.relative_to(directory).as_posix()
        yield Route(name, _endpoint(name, file), methods=["GET"])
        if name == "/index.html":
            yield Route("/", _endpoint("/", file), methods=["GET"])


def _endpoint(name: str, file: _File) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        request.scope["agentstream"].route = name
        return file.answer(request)

    return answer
