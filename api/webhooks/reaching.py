"""Sends requests to addresses that users name, and to nothing of the network that this server stands in.

A name is resolved once, at the moment of connecting: each of its addresses is checked, and the connection goes to one
of them, under the name. So it does not matter what the name resolves to at another moment (DNS rebinding). Redirects
are answers like any other. No proxy of the environment is used.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import anyio.to_thread
import httpcore
import httpx

from core.errors import InvalidRequest

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]

# https://www.iana.org/assignments/iana-ipv4-special-registry, and what clouds use for themselves.
REFUSED_IPV4 = [
    ipaddress.IPv4Network(block)
    for block in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
        *("192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24"),
        *("203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4", "168.63.129.16/32"),
    )
]
# Of IPv6 only this is the internet: not loopback, link-local, unique local, multicast, IPv4-mapped, NAT64.
PUBLIC_IPV6 = ipaddress.IPv6Network("2000::/3")
REFUSED_IPV6 = [  # protocols' own (Teredo among them), documentation, 6to4
    ipaddress.IPv6Network(block) for block in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")
]
MOST_ADDRESSES = 4  # that are tried, of a name that has more
CONNECT_SECONDS = 4.0  # for each of them
LOOK_UPS = 32  # at once
MOST_BYTES = 64 * 1024  # that are read of an answer
DRAIN_SECONDS = 1.0


class Unreached(Exception):  # noqa: N818 - not an error of ours
    """No answer came; says why, in words for the address's owner."""


def is_public(address: str) -> bool:
    """Whether this is an address of the internet, and nothing special."""
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv4Address):
        return not any(ip in block for block in REFUSED_IPV4)
    return ip in PUBLIC_IPV6 and not any(ip in block for block in REFUSED_IPV6)


async def look_up(limiter: anyio.CapacityLimiter, host: str, port: int) -> Sequence[str]:
    """The addresses of a name, none if there is no such name, by the machine's resolver."""
    asked = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    try:
        # Abandoned when the time is up: a resolver that hangs keeps its thread, and nobody else's.
        found = await anyio.to_thread.run_sync(asked, abandon_on_cancel=True, limiter=limiter)
    except (OSError, UnicodeError):  # there is none, or there cannot be
        return []
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class Reach:
    """A way to addresses that users name. `seconds`: how long a request may take, from the look-up to the answer."""

    def __init__(
        self,
        *,
        allow_private: bool,
        seconds: float,
        resolve: Resolve | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._seconds = seconds
        self._gate = _Gate(resolve or partial(look_up, anyio.CapacityLimiter(LOOK_UPS)), allow_private=allow_private)
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=ssl_context or httpx.create_ssl_context(),
            network_backend=self._gate,
            max_connections=None,
            max_keepalive_connections=0,  # each request is checked anew
        )

    async def check(self, url: str, *, param: str = "url") -> None:
        """Raise InvalidRequest for a URL that nothing could be sent to now."""
        parts = parse(url, param=param)
        try:
            async with asyncio.timeout(self._seconds):
                await self._gate.addresses(parts.raw_host.decode("ascii"), _port(parts))
        except TimeoutError:
            raise InvalidRequest(f"'{parts.host}' could not be looked up in time", param=param) from None
        except _Refused as refused:
            raise InvalidRequest(str(refused), param=param, code="address_refused") from None

    async def post(self, url: str, *, headers: Mapping[str, str], body: bytes) -> int:
        """The status of the answer, of which no more is read than is polite; raises Unreached."""
        parts = parse(url)
        target = httpcore.URL(scheme=parts.raw_scheme, host=parts.raw_host, port=_port(parts), target=parts.raw_path)
        told = {"host": parts.netloc.decode("ascii"), **headers}
        try:
            async with (
                asyncio.timeout(self._seconds),
                self._pool.stream("POST", target, headers=list(told.items()), content=body) as response,
            ):
                await _drain(response)
                return response.status
        except (TimeoutError, httpcore.TimeoutException):
            raise Unreached(f"no answer within {self._seconds:g} seconds") from None
        except _Refused as refused:
            raise Unreached(str(refused)) from None
        except httpcore.ConnectError as error:
            raise Unreached(_why(error)) from None
        except (httpcore.NetworkError, httpcore.ProtocolError, OSError):
            raise Unreached("the connection broke, or what came was not HTTP") from None

    async def close(self) -> None:
        """Hang up."""
        await self._pool.aclose()


def parse(url: str, *, param: str = "url") -> httpx.URL:
    """The URL's parts; raises InvalidRequest for one that no webhook can have."""
    try:
        parts = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise InvalidRequest(f"this is no URL: {error}", param=param, code="invalid_url") from None
    wrong = None
    if parts.scheme not in ("http", "https") or not parts.host:
        wrong = "a webhook's URL is https://HOST/PATH, or http://HOST/PATH"
    elif parts.userinfo:
        wrong = "a webhook's URL holds no user name or password: check the signature instead"
    elif parts.fragment:
        wrong = "what follows a # is never sent: leave it out"
    elif not 0 < _port(parts) < 65536:
        wrong = f"there is no port {parts.port}"
    if wrong is not None:
        raise InvalidRequest(wrong, param=param, code="invalid_url")
    return parts


def _port(parts: httpx.URL) -> int:
    standard = 443 if parts.scheme == "https" else 80
    return standard if parts.port is None else parts.port


class _Refused(Exception):  # noqa: N818 - said in the past tense
    """The name has no address, or one that is not on the internet."""


class _Gate(httpcore.AsyncNetworkBackend):
    """Connects to what a name resolves to, if all of it may be connected to."""

    def __init__(self, resolve: Resolve, *, allow_private: bool) -> None:
        self._resolve = resolve
        self._allow_private = allow_private
        self._tcp = httpcore.AnyIOBackend()

    async def addresses(self, host: str, port: int) -> Sequence[str]:
        """The addresses of a name; raises _Refused."""
        found = await self._resolve(host, port)
        if not found:
            raise _Refused(f"there is no host '{host}'")
        if not self._allow_private and not all(map(is_public, found)):
            raise _Refused(  # without the address: what a name means in here is nobody's business out there
                f"'{host}' is not on the internet, but loopback, private, link-local or special; "
                "whoever runs this server can allow that (WEIGHTWORKS_WEBHOOK_PRIVATE_ADDRESSES)"
            )
        return found

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """A connection to the first of its addresses that takes one."""
        *others, last = (await self.addresses(host, port))[:MOST_ADDRESSES]
        for address in others:
            with contextlib.suppress(httpcore.ConnectError, httpcore.ConnectTimeout):
                return await self._tcp.connect_tcp(address, port, CONNECT_SECONDS, local_address, socket_options)
        return await self._tcp.connect_tcp(last, port, CONNECT_SECONDS, local_address, socket_options)


def _why(error: httpcore.ConnectError) -> str:
    cause = error.__cause__ or error.__context__
    if isinstance(cause, ssl.SSLError):
        return f"no TLS connection could be made: {getattr(cause, 'verify_message', '') or cause.reason}"
    return "no connection could be made: refused, or the host is not reached"


async def _drain(response: httpcore.Response) -> None:
    """Read a short answer to its end, for the other side's sake; of a long or endless one no more than that."""
    read = 0
    with contextlib.suppress(TimeoutError, httpcore.NetworkError, httpcore.ProtocolError):
        async with asyncio.timeout(DRAIN_SECONDS):
            async for piece in response.aiter_stream():
                read += len(piece)
                if read > MOST_BYTES:
                    return
