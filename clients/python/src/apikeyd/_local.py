"""Decisions without a server: the facts of keys, and the lease under which a guard decides by them."""

import hashlib
import ipaddress
import os
import secrets
import threading
import time
from collections import OrderedDict
from typing import Any, Callable, Dict, List, Optional, Sequence, Set, Tuple

from google.protobuf import timestamp_pb2

from ._generated import auth_pb2, key_pb2
from ._rule import is_scope
from ._verdict import Question, Verdict

LOCAL_KEYS = 10_000
# Beyond, the clocks of guard and server do not agree on when a key ends.
_MAX_SKEW = 5.0
# Uses that are not confirmed yet; beyond, the server is asked for each decision.
_MAX_USES = 1_000
_MAX_COUNT = 1_000_000_000
_HOUR = 3_600
_NEVER = float("inf")
_VALID = auth_pb2.DECISION_VALID


class Clock:
    """Seconds."""

    now = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)


class _Use:
    """Equal decisions within an hour, to which more may be added until they are sent."""

    __slots__ = ("key_id", "decision", "scope", "client_ip", "first", "last", "count", "open")

    def __init__(self, key_id: str, decision: Any, question: Question, now: float) -> None:
        self.key_id, self.decision = key_id, decision
        self.scope, self.client_ip = question.scope, question.client_ip
        self.first = self.last = now
        self.count, self.open = 1, True


class _Asked:
    """A scope of a key: whether it is granted, the verdict that admits, and the uses of addresses."""

    __slots__ = ("grant", "admitted", "uses")

    def __init__(self, grant: Optional[str], admitted: Optional[Verdict]) -> None:
        self.grant, self.admitted = grant, admitted
        self.uses: Dict[str, _Use] = {}


class _Kept:
    """The facts of a key by one of its secrets, by the clock of the server."""

    def __init__(self, answer: Any) -> None:
        facts = answer.facts
        self.answer = answer
        self.networks = [ipaddress.ip_network(cidr, strict=False) for cidr in facts.ip_allowlist]
        self.ends = 0.0 if facts.expired else _NEVER
        if not facts.expired and facts.HasField("expire_time"):
            self.ends = _seconds(facts.expire_time)
        previous = facts.secret_slot == key_pb2.SECRET_SLOT_PREVIOUS
        self.secret_ends = _seconds(facts.previous_secret_expire_time) if previous else _NEVER
        self.asked: Dict[Optional[str], _Asked] = {}

    def ask(self, scope: Optional[str]) -> _Asked:
        grant = grant_for(self.answer.facts.scopes, scope)
        asked = _Asked(grant, None if grant is None else self.verdict(_VALID, grant))
        self.asked[scope] = asked
        return asked

    def decide(self, granted: bool, client_ip: str, now: float) -> Any:
        """By the rules of the server, in their order."""
        if now >= self.ends:
            return auth_pb2.DECISION_EXPIRED
        if now >= self.secret_ends:
            return auth_pb2.DECISION_ROTATED
        if self.networks and not self._allows(client_ip):
            return auth_pb2.DECISION_IP_NOT_ALLOWED
        return _VALID if granted else auth_pb2.DECISION_INSUFFICIENT_SCOPE

    def _allows(self, client_ip: str) -> bool:
        address = _address(client_ip)
        return address is not None and any(address in network for network in self.networks)

    def verdict(self, decision: Any, grant: str) -> Verdict:
        answer = auth_pb2.ValidateKeyResponse()
        answer.CopyFrom(self.answer)
        answer.decision, answer.valid, answer.matched_scope = decision, decision == _VALID, grant
        del answer.reasons[:]
        if not answer.valid:
            answer.reasons.append(decision)
        return Verdict.of(answer, local=True)


class LocalKeys:
    """A lease runs from the start of the call that got it, by the larger of the monotonic and the wall clock; a clock
    that was set back has ended it. Threads may share it."""

    def __init__(self, capacity: int, warn: Callable[[str], None], clock: Any = Clock) -> None:
        self._capacity, self.clock, self._warn = capacity, clock, warn
        self._guard_id = secrets.token_urlsafe(16)
        self._lock = threading.Lock()
        self._kept: "OrderedDict[bytes, _Kept]" = OrderedDict()
        self._hashes: Dict[str, Set[bytes]] = {}
        self._epoch, self._cursor, self._grant_id, self._generation = "", 0, "", 0
        self._start = self._start_monotonic = self._lease = self._server_time = 0.0
        self._locked: Set[str] = set()
        self._locked_complete = self._closing = self._told_skew = False
        self._uses: List[_Use] = []
        self._sent: List[Any] = []
        self._sequence = 0

    @property
    def lease(self) -> float:
        """Seconds of the lease that is held, or was held last."""
        return self._lease

    def _elapsed(self) -> float:
        """Since the start of the call that got the lease; infinite for a clock that was set back."""
        monotonic = self.clock.monotonic() - self._start_monotonic
        wall = self.clock.now() - self._start
        return _NEVER if monotonic < 0 or wall < 0 else max(monotonic, wall)

    def moment(self) -> Optional[Tuple[int, int]]:
        """The cursor and the generation of a question that is about to be sent; None without a lease."""
        with self._lock:
            return (self._cursor, self._generation) if self._elapsed() < self._lease else None

    def decide(self, question: Question) -> Optional[Verdict]:
        """The verdict, noted in the journal; None when the server must be asked."""
        digest = _hash(question.key)
        with self._lock:
            elapsed = self._elapsed()
            full = len(self._uses) + len(self._sent) >= _MAX_USES
            if elapsed >= self._lease or self._closing or full or question.dry_run:
                return None
            kept = self._kept.get(digest)
            if kept is None or self._may_be_locked(question.client_ip):
                return None
            self._kept.move_to_end(digest)
            asked = kept.asked.get(question.scope)
            if asked is None:
                if question.scope is not None and not is_scope(question.scope):
                    return None
                asked = kept.ask(question.scope)
            now = self._server_time + elapsed
            decision = kept.decide(asked.grant is not None, question.client_ip, now)
            valid = decision == _VALID
            verdict = asked.admitted if valid else kept.verdict(decision, asked.grant or "")
            before = asked.uses.get(question.client_ip) if valid else None
            # The server refuses a question with an odd address, and would refuse the report of its decision with all others.
            if before is None and question.client_ip and not _is_address(question.client_ip):
                return None
            use = self._note(before, kept.answer.key_id, decision, question, now)
            if valid and use is not before:
                if len(asked.uses) >= _MAX_USES:
                    asked.uses.clear()
                asked.uses[question.client_ip] = use
            # The process may have been stopped in between.
            if self._elapsed() >= self._lease:
                use.count -= 1
                return None
            return verdict

    def _note(self, use: Optional[_Use], key_id: str, decision: Any, question: Question, now: float) -> _Use:
        if use is not None and use.open and use.count < _MAX_COUNT and use.first // _HOUR == now // _HOUR:
            use.count += 1
            use.last = max(use.last, now)
            return use
        use = _Use(key_id, decision, question, now)
        self._uses.append(use)
        return use

    def _may_be_locked(self, client_ip: str) -> bool:
        if not client_ip:
            return False
        return not self._locked_complete or (bool(self._locked) and locked_form(client_ip) in self._locked)

    def keep(self, key: str, answer: Any, sent: int) -> None:
        """Keeps the facts of an answer to a question that was sent in this generation."""
        if not answer.HasField("facts"):
            return
        digest, kept = _hash(key), _Kept(answer)
        with self._lock:
            current = sent == self._generation and self._elapsed() < self._lease
            if not current or answer.facts.epoch != self._epoch:
                return
            self._drop(digest)
            if len(self._kept) >= self._capacity:
                self._drop(next(iter(self._kept)))
            self._kept[digest] = kept
            self._hashes.setdefault(answer.key_id, set()).add(digest)

    def _drop(self, digest: bytes) -> None:
        kept = self._kept.pop(digest, None)
        if kept is None:
            return
        hashes = self._hashes[kept.answer.key_id]
        hashes.discard(digest)
        if not hashes:
            del self._hashes[kept.answer.key_id]

    def request(self, closing: bool = False) -> Any:
        """The next request of SyncKeys; with closing no decision is made any more."""
        with self._lock:
            self._closing = self._closing or closing
            for use in self._uses:
                use.open = False
                if use.count > 0:
                    self._sent.append(self._message(use))
            self._uses = []
            return auth_pb2.SyncKeysRequest(
                guard_id=self._guard_id,
                epoch=self._epoch,
                revision=self._cursor,
                last_grant_id=self._grant_id,
                uses=self._sent,
                closing=closing,
            )

    def _message(self, use: _Use) -> Any:
        self._sequence += 1
        return auth_pb2.LocalUse(
            sequence=self._sequence,
            key_id=use.key_id,
            decision=use.decision,
            required_scope=use.scope,
            client_ip=use.client_ip,
            count=use.count,
            first_time=_timestamp(use.first),
            last_time=_timestamp(use.last),
        )

    def confirm(self, uses: Sequence[Any]) -> None:
        """The server has made these durable, or never will."""
        with self._lock:
            del self._sent[: len(uses)]

    def apply(self, request: Any, answer: Any, start: float, start_monotonic: float) -> None:
        """Applies an answer in one step. The times are from before the request was sent."""
        self.confirm(request.uses)
        with self._lock:
            self._generation += 1
            if answer.reset or answer.epoch != self._epoch:
                self._kept.clear()
                self._hashes.clear()
                self._cursor = answer.revision
            else:
                for change in answer.changes:
                    for digest in list(self._hashes.get(change.key_id, ())):
                        self._drop(digest)
                self._cursor = max(self._cursor, answer.revision)
            self._epoch, self._grant_id = answer.epoch, answer.grant_id
            self._start, self._start_monotonic = start, start_monotonic
            self._server_time = _seconds(answer.server_time)
            lease = answer.lease.seconds + answer.lease.nanos / 1e9
            self._lease = lease if self._clocks_agree() else 0.0
            self._locked = set(answer.locked_addresses)
            self._locked_complete = answer.locked_addresses_complete

    def _clocks_agree(self) -> bool:
        """The server's time was read after the request was sent."""
        ahead, behind = self._server_time - self.clock.now(), self._start - self._server_time
        agree = ahead < _MAX_SKEW and behind < _MAX_SKEW
        if not agree and not self._told_skew:
            self._warn("the clocks of the guard and of apikeyd are more than 5 s apart: no local decisions")
        self._told_skew = not agree
        return agree


class LocalState:
    """The local keys of this process, and the thread that keeps their lease. A forked process has its own."""

    def __init__(self, create: Callable[[], LocalKeys], sync: Callable[["LocalState", LocalKeys], None]) -> None:
        self._create, self._sync = create, sync
        self._lock = threading.Lock()
        self._owner = 0
        self.ended = threading.Event()

    def keys(self) -> LocalKeys:
        if self._owner != os.getpid():
            with _BEGINNING:
                if self._owner != os.getpid():
                    self._keys, self.ended = self._create(), threading.Event()
                    self._thread = threading.Thread(
                        target=self._sync, args=(self, self._keys), name="apikeyd-sync", daemon=True
                    )
                    self._thread.start()
                    self._owner = os.getpid()
        return self._keys

    _keys: LocalKeys
    _thread: threading.Thread

    def close(self) -> None:
        """Gives the lease back, with the decisions that were not reported yet."""
        if self._owner == os.getpid():
            self.ended.set()
            self._thread.join()


_BEGINNING = threading.Lock()
# A lock that another thread held while this process was forked would be held for ever.
if hasattr(os, "register_at_fork"):

    def _renew_lock() -> None:
        global _BEGINNING
        _BEGINNING = threading.Lock()

    os.register_at_fork(after_in_child=_renew_lock)


def grant_for(grants: Sequence[str], scope: Optional[str]) -> Optional[str]:
    """The first grant that covers the scope; "" for no scope; None when none does."""
    if scope is None:
        return ""
    control = _is_control(scope)
    return next((grant for grant in grants if (not control or _is_control(grant)) and _covers(grant, scope)), None)


def _is_control(scope: str) -> bool:
    return scope == "apikeys" or scope.startswith("apikeys:")


def _covers(grant: str, scope: str) -> bool:
    if grant in (scope, "*"):
        return True
    have, want = grant.split(":"), scope.split(":")
    return len(have) == len(want) and all(part in ("*", other) for part, other in zip(have, want))


def locked_form(client_ip: str) -> str:
    """As the server names a locked address: IPv4 as it is, IPv6 by its /64."""
    address = _address(client_ip)
    if address is None:
        return client_ip
    if address.version == 4:
        return str(address)
    return str(ipaddress.ip_network((int(address) >> 64 << 64, 64)))


def _address(text: str) -> Any:
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _is_address(text: str) -> bool:
    return "%" not in text and _address(text) is not None


def _hash(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "replace")).digest()


def _seconds(time_stamp: Any) -> float:
    return float(time_stamp.seconds + time_stamp.nanos / 1e9)


def _timestamp(seconds: float) -> timestamp_pb2.Timestamp:
    millis = int(seconds * 1_000)
    return timestamp_pb2.Timestamp(seconds=millis // 1_000, nanos=millis % 1_000 * 1_000_000)
