"""The requirements of a request, and how its question is read from it."""

import ipaddress
import re
from dataclasses import dataclass
from typing import Callable, Optional, Sequence

import grpc

from ._verdict import NoDecision, Question

_SCOPE = re.compile(r"[A-Za-z0-9._-]+(:[A-Za-z0-9._-]+)*")
_MAX_SCOPE = 1_024
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_BEARER = re.compile(r"bearer(?: +(.*))?", re.IGNORECASE | re.DOTALL)
_REQUEST_ID = re.compile(r"[\x20-\x7e]{1,1024}")
_V4_AND_PORT = re.compile(r"(\d+\.\d+\.\d+\.\d+):\d{1,5}", re.ASCII)
_IN_BRACKETS = re.compile(r"\[([^\[\]]+)\](?::\d{1,5})?", re.ASCII)
_ZONE = re.compile(r"%[\w.~-]{1,64}$", re.ASCII)

#: Returns a header by its lower-case name, several joined by commas; None when absent.
Header = Callable[[str], Optional[str]]


@dataclass(frozen=True)
class Rule:
    """The requirements for a key.

    :raises ValueError: for an invalid rule
    """

    #: The scope that the key must cover, such as "traces:read". None accepts every valid key.
    scope: Optional[str]
    #: How much a request consumes of each limit of the key: 1 to 1 000 000 000.
    cost: int = 1
    #: How many of your proxies append to x-forwarded-for, at most 16; 0: the peer is the client.
    trusted_hops: int = 0
    #: Headers that may hold the key; the first one present counts. authorization counts only as Bearer.
    key_headers: Sequence[str] = ("authorization", "x-api-key")

    def __post_init__(self) -> None:
        if self.scope is not None and not is_scope(self.scope):
            raise ValueError(f"scope {self.scope!r} is not letters, digits, `.`, `_` and `-` with `:` between")
        if not 1 <= self.cost <= 1_000_000_000:
            raise ValueError("cost is not between 1 and 1 000 000 000")
        if not 0 <= self.trusted_hops <= 16:
            raise ValueError("trusted_hops is not between 0 and 16")
        if isinstance(self.key_headers, str) or not self.key_headers:
            raise ValueError("key_headers is no list of names")
        for name in self.key_headers:
            if not _HEADER.fullmatch(name):
                raise ValueError(f"key_headers: {name!r} is no name of a header")

    def question(self, header: Header, peer: str) -> Optional[Question]:
        """The question about a request; None when the request has no key.

        :raises NoDecision: when x-forwarded-for does not match trusted_hops
        """
        key = self._key(header)
        if key is None:
            return None
        request_id = header("x-request-id") or ""
        return Question(
            key=key,
            scope=self.scope,
            client_ip=self.client_ip(header, peer),
            user_agent=header("user-agent") or "",
            request_id=request_id if _REQUEST_ID.fullmatch(request_id) else "",
            cost=self.cost,
        )

    def _key(self, header: Header) -> Optional[str]:
        for name in map(str.lower, self.key_headers):
            held = header(name)
            if held is None:
                continue
            if name != "authorization":
                return held
            bearer = _BEARER.fullmatch(held)
            if bearer:
                return bearer[1] or ""
        return None

    def client_ip(self, header: Header, peer: str) -> str:
        """The address, from a place that the client cannot forge."""
        if self.trusted_hops == 0:
            return address_in(peer)
        entries = (header("x-forwarded-for") or "").split(",")
        address = address_in(entries[-self.trusted_hops]) if len(entries) >= self.trusted_hops else ""
        if not address:
            raise NoDecision(grpc.StatusCode.INTERNAL, "TRUSTED_HOPS", misconfigured=True)
        return address


def is_scope(text: str) -> bool:
    """Whether a request may require the scope."""
    return _SCOPE.fullmatch(text) is not None and len(text) <= _MAX_SCOPE


def address_in(text: str) -> str:
    """An address as proxies write it, with or without port and zone; "" for anything else."""
    text = text.strip()
    match = _V4_AND_PORT.fullmatch(text) or _IN_BRACKETS.fullmatch(text)
    bare = match[1] if match else text
    try:
        address = ipaddress.ip_address(_ZONE.sub("", bare) if ":" in bare else bare)
    except ValueError:
        return ""
    return str(getattr(address, "ipv4_mapped", None) or address)


def text_of(value: bytes) -> str:
    """A header's bytes: UTF-8, else Latin-1."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")
