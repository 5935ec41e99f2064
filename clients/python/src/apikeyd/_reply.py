"""The response to a client, for HTTP and gRPC alike."""

import math
import re
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import List, Optional, Tuple

import grpc

from ._verdict import Decision, NoDecision, Verdict

Headers = List[Tuple[str, str]]
_LIMIT_NAME = re.compile(r"[A-Za-z0-9_.-]+")


@dataclass(frozen=True)
class Reply:
    #: 200 for an admitted request.
    status: int
    code: grpc.StatusCode
    #: The error in the body, or the message of the gRPC status.
    word: str = ""
    challenge: str = ""
    #: In whole seconds; 0: no retry-after is sent.
    retry_after: int = 0
    #: RateLimit-Policy and RateLimit, for a key with limits.
    limits: Tuple[Tuple[str, str], ...] = ()

    @property
    def headers(self) -> Headers:
        """The headers of a denial."""
        said = [("content-type", "application/json"), ("cache-control", "no-store"), *self.limits]
        if self.challenge:
            said.append(("www-authenticate", self.challenge))
        if self.retry_after:
            said.append(("retry-after", str(self.retry_after)))
        return said

    @property
    def body(self) -> bytes:
        return b'{"error":"%s"}' % self.word.encode()


NO_KEY = Reply(401, grpc.StatusCode.UNAUTHENTICATED, "missing_token", "Bearer")
_INVALID = Reply(401, grpc.StatusCode.UNAUTHENTICATED, "invalid_token", 'Bearer error="invalid_token"')
_FORBIDDEN = Reply(403, grpc.StatusCode.PERMISSION_DENIED, "insufficient_scope", 'Bearer error="insufficient_scope"')
# The response for each outcome.
_REPLIES = {
    Decision.VALID: Reply(200, grpc.StatusCode.OK),
    Decision.MALFORMED: _INVALID,
    Decision.NOT_FOUND: _INVALID,
    Decision.REVOKED: _INVALID,
    Decision.DISABLED: _INVALID,
    Decision.EXPIRED: _INVALID,
    Decision.ROTATED: _INVALID,
    Decision.IP_NOT_ALLOWED: _FORBIDDEN,
    Decision.INSUFFICIENT_SCOPE: _FORBIDDEN,
    Decision.RATE_LIMITED: Reply(429, grpc.StatusCode.RESOURCE_EXHAUSTED, "rate_limited"),
    Decision.LOCKED_OUT: Reply(429, grpc.StatusCode.RESOURCE_EXHAUSTED, "too_many_failures"),
}


def reply_to(verdict: Verdict, scope: Optional[str]) -> Reply:
    said = _REPLIES[verdict.decision]
    if said.status == 403 and scope is not None:
        said = replace(said, challenge=f'{said.challenge}, scope="{scope}"')
    if said.status == 429 and verdict.retry_after is not None:
        said = replace(said, retry_after=max(1, _whole_seconds(verdict.retry_after)))
    return replace(said, limits=_limits(verdict))


def reply_to_none(error: NoDecision) -> Reply:
    if error.misconfigured:
        return Reply(500, grpc.StatusCode.INTERNAL, "guard_misconfigured")
    wait = max(1, _whole_seconds(error.retry_after))
    return Reply(503, grpc.StatusCode.UNAVAILABLE, "unavailable", retry_after=wait)


def _limits(verdict: Verdict) -> Tuple[Tuple[str, str], ...]:
    """The headers of draft-ietf-httpapi-ratelimit-headers."""
    now = datetime.now(timezone.utc)
    policies, states = [], []
    for limit in verdict.limits:
        if not _LIMIT_NAME.fullmatch(limit.name):
            continue
        window = _whole_seconds(limit.window)
        reset = window
        if limit.reset_time is not None:
            reset = _whole_seconds((limit.reset_time - now).total_seconds())
        policies.append(f'"{limit.name}";q={limit.limit};w={window}')
        states.append(f'"{limit.name}";r={limit.remaining};t={reset}')
    return (("ratelimit-policy", ", ".join(policies)), ("ratelimit", ", ".join(states))) if states else ()


def _whole_seconds(seconds: float) -> int:
    """Rounded up; negative values become 0."""
    return max(0, math.ceil(seconds))
