"""HTTP clients for servers that a user names: addresses checked, local ones reached without a proxy, proxies named."""

import os
import re
from collections.abc import Sequence
from typing import Any

import httpx

__all__ = ["address", "client"]

_LOCAL = ("localhost", "127.0.0.1", "::1", "0.0.0.0")
_PROXIES = ("ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY")


def address(url: str) -> str:
    """The server's root, without a slash or /v1 at the end. Raises ValueError for what is no address of a server."""
    root = url.rstrip("/").removesuffix("/v1").rstrip("/")
    try:
        parsed = httpx.URL(root)
        port = parsed.port
    except (httpx.InvalidURL, ValueError) as error:
        raise ValueError(f"{url!r} is no address of a server: {error}") from error
    if not re.match(r"https?://[^/]", root) or not parsed.host.strip("[]"):
        raise ValueError(f"{url!r} is no address of a server; write it as http://localhost:30000")
    if port is not None and not 0 < port < 65536:
        raise ValueError(f"{url!r} is no address of a server: there are ports 1 to 65535, not {port}")
    return root


def client(urls: Sequence[str], **settings: Any) -> httpx.AsyncClient:
    """A client for these servers. Local ones are never asked through a proxy.

    Raises RuntimeError that names the variable if the environment asks for a proxy that cannot be used.
    """
    local = all(httpx.URL(url).host in _LOCAL for url in urls)
    direct = {f"all://{f'[{host}]' if ':' in host else host}": None for host in _LOCAL}
    try:
        return httpx.AsyncClient(trust_env=not local, mounts=direct, **settings)
    except (ImportError, ValueError, httpx.InvalidURL) as error:
        names = [name for spelt in _PROXIES for name in (spelt, spelt.lower()) if os.environ.get(name)]
        raise RuntimeError(
            f"the proxy of {', '.join(names) or 'the environment'} cannot be used ({error}); unset it, or correct it"
        ) from error
