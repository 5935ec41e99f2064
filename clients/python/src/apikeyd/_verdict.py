"""Questions and verdicts."""

import enum
import re
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, Optional, Sequence, Tuple

import grpc
from google.rpc import error_details_pb2, status_pb2

from ._generated import auth_pb2, key_pb2

_MAX_USER_AGENT = 512
_REASON = re.compile(r"[A-Z][A-Z0-9_]{0,63}")
_ASKS_WRONGLY = (
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.INVALID_ARGUMENT,
)


class Decision(str, enum.Enum):
    """The outcomes of apikeyd, in the order in which they are checked."""

    LOCKED_OUT = "LOCKED_OUT"
    MALFORMED = "MALFORMED"
    NOT_FOUND = "NOT_FOUND"
    REVOKED = "REVOKED"
    DISABLED = "DISABLED"
    EXPIRED = "EXPIRED"
    ROTATED = "ROTATED"
    IP_NOT_ALLOWED = "IP_NOT_ALLOWED"
    INSUFFICIENT_SCOPE = "INSUFFICIENT_SCOPE"
    RATE_LIMITED = "RATE_LIMITED"
    VALID = "VALID"


@dataclass(frozen=True)
class Question:
    """A question about one key."""

    #: The key as the client sent it, not trimmed. The repr of a question leaves it out.
    key: str = field(repr=False)
    #: The scope that the request needs, without ``*``; None accepts any valid key.
    scope: Optional[str] = None
    #: The end client's address: lockout, allow-lists and anomalies need it. "" means unknown.
    client_ip: str = ""
    #: The user agent of the end client, for the audit. Cut at 512 characters.
    user_agent: str = ""
    #: For the audit and for errors, at most 1 024 characters.
    request_id: str = ""
    #: How much is consumed of each limit of the key, 1 to 1 000 000 000.
    cost: int = 1
    #: Decide without consuming any limit.
    dry_run: bool = False

    def request(self) -> auth_pb2.ValidateKeyRequest:
        return auth_pb2.ValidateKeyRequest(
            key=_whole(self.key),
            required_scope=None if self.scope is None else _whole(self.scope),
            client_ip=_whole(self.client_ip),
            user_agent=_whole(self.user_agent)[:_MAX_USER_AGENT],
            request_id=_whole(self.request_id),
            cost=self.cost,
            dry_run=self.dry_run,
        )


def _whole(text: str) -> str:
    """Without halves of surrogate pairs, which no message can hold: the exception would repeat the text."""
    return text.encode("utf-8", "replace").decode()


@dataclass(frozen=True)
class Limit:
    """One limit of a key, after this call. Windows and waits are in seconds."""

    name: str
    limit: int
    window: float
    remaining: int
    #: The end of the window; None while nothing has been counted in it.
    reset_time: Optional[datetime]


@dataclass(frozen=True)
class Verdict:
    """apikeyd's decision about a key."""

    decision: Decision
    #: For your logs; "" when no key was found.
    key_id: str
    #: "SERVICE", …
    key_type: str
    owner_id: str
    #: The grant that covers the required scope.
    matched_scope: str
    limits: Sequence[Limit]
    #: Seconds to wait after RATE_LIMITED and LOCKED_OUT; None when waiting does not help.
    retry_after: Optional[float]
    #: The whole ValidateKeyResponse.
    answer: Any = field(repr=False, compare=False)
    #: The guard decided by itself, under a lease.
    local: bool = False

    @property
    def ok(self) -> bool:
        return self.decision is Decision.VALID

    def __bool__(self) -> bool:
        return self.ok

    @staticmethod
    def of(answer: Any, local: bool = False) -> "Verdict":
        """:raises NoDecision: for an inconsistent response"""
        try:
            decision = Decision(auth_pb2.Decision.Name(answer.decision).replace("DECISION_", "", 1))
            key_type = key_pb2.KeyType.Name(answer.key_type).replace("KEY_TYPE_", "", 1)
        except (ValueError, AttributeError, TypeError):
            decision, key_type = None, ""
        if decision is None or (decision is Decision.VALID) != answer.valid:
            raise NoDecision(grpc.StatusCode.DATA_LOSS)
        return Verdict(
            decision=decision,
            key_id=answer.key_id,
            key_type=key_type,
            owner_id=answer.owner_id,
            matched_scope=answer.matched_scope,
            limits=tuple(map(_limit, answer.rate_limits)),
            retry_after=_seconds(answer.retry_after) if answer.HasField("retry_after") else None,
            answer=answer,
            local=local,
        )


def _limit(state: Any) -> Limit:
    reset = state.reset_time.ToDatetime(tzinfo=timezone.utc) if state.HasField("reset_time") else None
    return Limit(state.name, state.limit, _seconds(state.window), state.remaining, reset)


def _seconds(duration: Any) -> float:
    return max(0.0, float(duration.seconds + duration.nanos / 1e9))


class NoDecision(Exception):
    """There is no decision: treat the key as denied. Contains no text of the server, which could repeat a key."""

    def __init__(
        self, code: grpc.StatusCode, reason: str = "", retry_after: float = 0.0, misconfigured: bool = False
    ) -> None:
        super().__init__(f"no decision: {code.name} {reason}".rstrip())
        #: DATA_LOSS for an inconsistent response.
        self.code = code
        #: apikeyd's ErrorInfo.reason, such as STORE_UNAVAILABLE; "" when the error is not from apikeyd.
        self.reason = reason
        #: The wait that the server asks for, in seconds; 0 for none.
        self.retry_after = retry_after
        #: No question of the guard can succeed, or its own key does not work.
        self.misconfigured = misconfigured

    @staticmethod
    def of(error: BaseException) -> "NoDecision":
        """Converts the error of a call."""
        code = error.code() if isinstance(error, grpc.RpcError) else grpc.StatusCode.UNKNOWN
        reason, wait = _details(error)
        return NoDecision(code, reason, wait, bool(reason) and code in _ASKS_WRONGLY)


def _details(error: BaseException) -> Tuple[str, float]:
    reason, wait = "", 0.0
    trailers: Any = error.trailing_metadata() if isinstance(error, grpc.RpcError) else None
    try:
        for name, value in trailers or ():
            if name != "grpc-status-details-bin":
                continue
            for detail in status_pb2.Status.FromString(value).details:
                info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
                if detail.Unpack(info) and info.domain == "apikey.v1" and _REASON.fullmatch(info.reason):
                    reason = info.reason
                if detail.Unpack(retry):
                    wait = _seconds(retry.retry_delay)
    except Exception:  # Unreadable details are ignored.
        return "", 0.0
    return reason, wait


@dataclass(frozen=True)
class Observation:
    """Describes one question, for metrics."""

    #: A Decision, or NO_KEY, UNAVAILABLE (no decision) or MISCONFIGURED.
    outcome: str
    #: Why there is no decision.
    error: Optional[NoDecision] = None
    #: How many calls to apikeyd the question needed.
    calls: int = 0
    #: The duration in seconds.
    duration: float = 0.0
    #: The guard decided by itself.
    local: bool = False
