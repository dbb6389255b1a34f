"""Connections to HTTP servers: pools of this process, through the proxies that the environment names.

A pool must not be shared with a forked process: both would read from the same socket. So pools are looked up by
process id, and a new process begins without any.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    import urllib3

CONNECTIONS = 32
"""Idle connections that are kept for one host; more may be open at a time."""

_pools: dict[tuple[int, str | None, str | None], urllib3.PoolManager] = {}


def pool_for(url: str) -> urllib3.PoolManager:
    """The pool of this process for a url."""
    key = (os.getpid(), proxy_for(url), os.environ.get("CURL_CA_BUNDLE") or None)
    pool = _pools.get(key)
    if pool is None:
        for other in [other for other in _pools if other[0] != key[0]]:
            _pools.pop(other, None)  # inherited through a fork: of no use here
        pool = _pools.setdefault(key, _new_pool(key[1], key[2]))
    return pool


def proxy_for(url: str) -> str | None:
    """The proxy that http_proxy, https_proxy, all_proxy and no_proxy ask for, None for a direct connection."""
    import urllib.request

    parts = urlsplit(url)
    proxies = urllib.request.getproxies_environment()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if not proxy or urllib.request.proxy_bypass(parts.netloc.rpartition("@")[2]):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _new_pool(proxy: str | None, certificates: str | None) -> urllib3.PoolManager:
    from .connections import POOLS

    pool = _manager(proxy, certificates)
    pool.pool_classes_by_scheme = POOLS
    return pool


def _manager(proxy: str | None, certificates: str | None) -> urllib3.PoolManager:
    import urllib3

    if proxy is None:
        return urllib3.PoolManager(maxsize=CONNECTIONS, ca_certs=certificates)
    authority = urlsplit(proxy).netloc
    user, at, host = authority.rpartition("@")
    headers = urllib3.make_headers(proxy_basic_auth=unquote(user)) if at else None
    proxy = proxy.replace(authority, host, 1)
    return urllib3.ProxyManager(proxy, proxy_headers=headers, maxsize=CONNECTIONS, ca_certs=certificates)
