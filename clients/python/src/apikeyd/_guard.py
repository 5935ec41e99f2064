"""The clients: Guard for threads, AsyncGuard for asyncio."""

import asyncio
import logging
import os
import random
import threading
import time
from typing import Any, Callable, Coroutine, List, Mapping, Optional, Sequence, Set, Tuple, TypeVar, Union, cast

import grpc
import grpc.aio

from ._generated import auth_pb2
from ._keyfile import KeyFile
from ._local import LOCAL_KEYS, LocalKeys, LocalState
from ._reply import NO_KEY, Reply, reply_to, reply_to_none
from ._rule import Header, Rule
from ._verdict import NoDecision, Observation, Question, Verdict

DEADLINE = 0.5
_MAX_CALLS = 3
_FIRST_PAUSE = 0.05
_MAX_BATCH = 100
# Longer texts are no keys; a batch of them would exceed the limit of the server.
_MAX_KEY_IN_BATCH = 1024
_SERVICE = "/apikey.v1.ApiKeyAuth/"
_OPTIONS = (
    # The guard retries by itself, since the retries of gRPC ignore RetryInfo.
    ("grpc.enable_retries", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # Without keepalive, calls would wait for minutes for a server that vanished without closing the connection.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 2_000),
)
_SYNC_RETRY = 0.25
# After an answer that another try soon would repeat.
_HOPELESS = 60.0
_REFUSES_LEASES = (
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.UNIMPLEMENTED,
)
_REFUSES_ONE = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION)
_T = TypeVar("_T")
_log = logging.getLogger("apikeyd")


class _Asked:
    """A question in flight."""

    def __init__(self, request: Any) -> None:
        self.request = request
        self.response: Any = None
        self.error: Optional[NoDecision] = NoDecision(grpc.StatusCode.DEADLINE_EXCEEDED)
        self.calls = 0


class _Attempts:
    """The calls that one question or batch may make. Pure except for the clock, the key file and random waits."""

    def __init__(self, key_file: KeyFile, end: float) -> None:
        self._key_file, self._end = key_file, end
        self._key, self._renewed, self._tries = key_file.current(), False, 1
        self.calls = 0

    def begin(self) -> dict:
        """The arguments of the next call. The metadata of the guarded request is not passed on."""
        self.calls += 1
        left = max(0.001, self._end - time.monotonic())
        return {"timeout": left, "metadata": (("authorization", f"Bearer {self._key}"),)}

    def pause(self, failure: NoDecision) -> Optional[float]:
        """Seconds until the next call; None when there is none."""
        if failure.code is grpc.StatusCode.UNAUTHENTICATED and not self._renewed:
            old, self._key, self._renewed = self._key, self._key_file.reread(), True
            return None if self._key == old else 0.0
        if failure.code is not grpc.StatusCode.UNAVAILABLE or self._tries == _MAX_CALLS:
            return None
        wait = max(failure.retry_after, random.uniform(0, _FIRST_PAUSE * 2 ** (self._tries - 1)))
        self._tries += 1
        return wait if time.monotonic() + wait < self._end else None


class _Base:
    def __init__(
        self,
        address: str,
        *,
        key_file: Union[str, "os.PathLike[str]"],
        deadline: float = DEADLINE,
        batch_window: float = 0.0,
        credentials: Optional[grpc.ChannelCredentials] = None,
        observe: Optional[Callable[[Observation], None]] = None,
        options: Sequence[Tuple[str, Any]] = (),
        local: bool = False,
        local_keys: int = LOCAL_KEYS,
    ) -> None:
        """
        :param address: of apikeyd's gRPC port: ``host:port`` or ``http://host:port`` without TLS, ``https://host:port``
        :param key_file: holds the guard's own key, which needs the scope apikeys:validate; read again when it changes
        :param deadline: seconds for a question, retries included
        :param batch_window: above 0 (0.001 s, say) the questions of such a window are one call of at most 100
        :param credentials: for an https address; None: the root certificates of the system
        :param observe: called once for each question when it ends, for metrics; must not block
        :param options: options of the gRPC channel, added to those of the guard
        :param local: decide by itself about keys with local_validation while a lease holds: no network hop, and RevokeKey
            still waits for this guard. Its decisions are in the audit within a lease, not before the response
        :param local_keys: with local: how many secrets are kept, as hashes
        :raises ValueError, OSError: for an invalid argument, or a key file without a key
        """
        scheme, separator, host = address.rpartition("://")
        if not host or "/" in host or scheme not in ("", "http", "https") or (separator and not scheme):
            raise ValueError("address is not host:port, http://host:port or https://host:port")
        if not 0 <= batch_window < deadline:
            raise ValueError("deadline is not above 0, or batch_window not from 0 to below deadline")
        secure = credentials or grpc.ssl_channel_credentials() if scheme == "https" else None
        if credentials is not None and secure is None:
            raise ValueError("credentials are for an address with https")
        self._target, self._secure = host, secure
        self._key_file = KeyFile(key_file)
        self._deadline, self._batch_window = deadline, batch_window
        self._observe_hook, self._options = observe, [*_OPTIONS, *options]
        self._told: Set[str] = set()
        if local_keys < 1:
            raise ValueError("local_keys is not above 0")
        self._local = LocalState(lambda: LocalKeys(local_keys, _log.warning), self._keep_lease) if local else None

    def _channel_by(self, library: Any) -> Any:
        if self._secure is None:
            return library.insecure_channel(self._target, options=self._options)
        return library.secure_channel(self._target, self._secure, options=self._options)

    def _keep_lease(self, state: LocalState, keys: LocalKeys) -> None:
        """One call of SyncKeys after the other, in a thread of its own, also for asyncio."""
        with self._channel_by(grpc) as channel:
            call = channel.unary_unary(
                _SERVICE + "SyncKeys",
                request_serializer=auth_pb2.SyncKeysRequest.SerializeToString,
                response_deserializer=auth_pb2.SyncKeysResponse.FromString,
            )
            while not state.ended.is_set():
                state.ended.wait(self._sync_once(call, keys, False))
            self._sync_once(call, keys, True)

    def _sync_once(self, call: Any, keys: LocalKeys, closing: bool) -> float:
        """Seconds until the next call is due."""
        request = keys.request(closing)
        start, start_monotonic = keys.clock.now(), keys.clock.monotonic()
        # The server may hold the call for a quarter of the lease.
        attempts = _Attempts(self._key_file, start_monotonic + keys.lease / 4 + self._deadline)
        while True:
            try:
                answer = call(request, **attempts.begin())
                keys.apply(request, answer, start, start_monotonic)
                return min(_HOPELESS, answer.poll_after.seconds + answer.poll_after.nanos / 1e9)
            except Exception as error:
                failure = NoDecision.of(error)
            wait = attempts.pause(failure)
            if wait is None:
                break
            time.sleep(wait)
        if failure.code is grpc.StatusCode.INVALID_ARGUMENT:
            # Never accepted, whenever it is sent again.
            keys.confirm(request.uses)
        wait = _HOPELESS if failure.code in _REFUSES_LEASES else max(_SYNC_RETRY, failure.retry_after)
        return wait * random.uniform(0.75, 1.25)

    def _open(self, library: Any) -> Tuple[Any, Any, Any]:
        """A channel and its two calls."""
        channel = self._channel_by(library)
        single = channel.unary_unary(
            _SERVICE + "ValidateKey",
            request_serializer=auth_pb2.ValidateKeyRequest.SerializeToString,
            response_deserializer=auth_pb2.ValidateKeyResponse.FromString,
        )
        batch = channel.unary_unary(
            _SERVICE + "BatchValidateKeys",
            request_serializer=auth_pb2.BatchValidateKeysRequest.SerializeToString,
            response_deserializer=auth_pb2.BatchValidateKeysResponse.FromString,
        )
        return channel, single, batch

    # The ways to wait. A Guard blocks in them, so that its coroutines run without an event loop.

    def _calls(self) -> Tuple[Any, Any, Any]:
        raise NotImplementedError

    async def _invoke(self, call: Any, request: Any, arguments: Mapping[str, Any]) -> Any:
        raise NotImplementedError

    async def _sleep(self, seconds: float) -> None:
        raise NotImplementedError

    async def _join(self, asked: _Asked, end: float) -> _Asked:
        raise NotImplementedError

    async def _validate(self, question: Question) -> Verdict:
        begun = time.monotonic()
        keys = None if self._local is None else self._local.keys()
        decided = None if keys is None else keys.decide(question)
        if decided is not None:
            self._observe(decided.decision.value, None, 0, begun, local=True)
            return decided
        asked, end = _Asked(question.request()), begun + self._deadline
        if keys is not None and await self._send_for_facts(keys, asked, end):
            return self._finish(asked, begun)
        if not self._batch_window or len(asked.request.key) > _MAX_KEY_IN_BATCH:
            await self._send_one(asked, end)
        else:
            asked = await self._join(asked, end)
        return self._finish(asked, begun)

    async def _admit(self, rule: Rule, header: Header, peer: str) -> Tuple[Optional[Verdict], Reply]:
        """Decides about a request, for middleware."""
        begun = time.monotonic()
        try:
            question = rule.question(header, peer)
        except NoDecision as error:
            self._observe("", error, 0, begun)
            return None, reply_to_none(error)
        if question is None:
            self._observe("NO_KEY", None, 0, begun)
            return None, NO_KEY
        try:
            verdict = await self._validate(question)
        except NoDecision as error:
            return None, reply_to_none(error)
        return verdict, reply_to(verdict, rule.scope)

    async def _send_one(self, asked: _Asked, end: float) -> None:
        asked.response, asked.error, asked.calls = await self._call(1, asked.request, end)

    async def _send_for_facts(self, keys: LocalKeys, asked: _Asked, end: float) -> bool:
        """Asks for the facts that a guard with a lease may keep; False when the question is still to be asked."""
        moment = keys.moment()
        if moment is None or asked.request.dry_run:
            return False
        cursor, sent = moment
        asked.request.want_facts, asked.request.min_revision = True, cursor
        await self._send_one(asked, end)
        if asked.error is not None and asked.error.reason == "REVISION_NOT_REACHED":
            # The server that answers is behind the one of the lease: its decision counts, its facts do not.
            asked.request.want_facts, asked.request.min_revision = False, 0
            return False
        if asked.error is None:
            keys.keep(asked.request.key, asked.response, sent)
        return True

    async def _send_batch(self, batch: Sequence[_Asked], end: float) -> None:
        together = auth_pb2.BatchValidateKeysRequest(requests=[asked.request for asked in batch])
        response, error, calls = await self._call(2, together, end)
        answers = () if response is None else response.responses
        if error is None and len(answers) != len(batch):
            error = NoDecision(grpc.StatusCode.DATA_LOSS)
        for i, asked in enumerate(batch):
            asked.calls, asked.error = calls, error
            asked.response = answers[i] if error is None else None
        if error is not None and error.code in _REFUSES_ONE and len(batch) > 1:
            # A refused question fails the batch before any decision: sent alone, it fails only itself.
            for asked in batch:
                await self._send_one(asked, end)

    async def _call(self, which: int, request: Any, end: float) -> Tuple[Any, Optional[NoDecision], int]:
        attempts = _Attempts(self._key_file, end)
        while True:
            try:
                response = await self._invoke(self._calls()[which], request, attempts.begin())
                return response, None, attempts.calls
            except Exception as error:
                failure = NoDecision.of(error)
            wait = attempts.pause(failure)
            if wait is None:
                return None, failure, attempts.calls
            await self._sleep(wait)

    def _finish(self, asked: _Asked, begun: float) -> Verdict:
        error = asked.error
        verdict = None
        if error is None:
            try:
                verdict = Verdict.of(asked.response)
            except NoDecision as senseless:
                error = senseless
        self._observe("" if verdict is None else verdict.decision.value, error, asked.calls, begun)
        if verdict is None:
            raise error or NoDecision(grpc.StatusCode.DATA_LOSS)
        return verdict

    def _observe(
        self, outcome: str, error: Optional[NoDecision], calls: int, begun: float, local: bool = False
    ) -> None:
        if error is not None:
            outcome = "MISCONFIGURED" if error.misconfigured else "UNAVAILABLE"
            # Logged once: every request would repeat it.
            if error.misconfigured and str(error) not in self._told:
                self._told.add(str(error))
                _log.error("the guard is misconfigured and lets nobody in: %s", error)
        if self._observe_hook is None:
            return
        try:
            self._observe_hook(Observation(outcome, error, calls, time.monotonic() - begun, local))
        except Exception:
            _log.exception("the hook for metrics failed")

    def _no_rule(self) -> Reply:
        error = NoDecision(grpc.StatusCode.INTERNAL, "NO_RULE", misconfigured=True)
        self._observe("", error, 0, time.monotonic())
        return reply_to_none(error)


def _at_once(coroutine: Coroutine[Any, Any, _T]) -> _T:
    """The result of a coroutine that never suspends."""
    try:
        coroutine.send(None)
    except StopIteration as ended:
        return cast(_T, ended.value)
    raise AssertionError("a coroutine of a Guard waited")


class _Window:
    """A batch that threads are joining; the first of them sends it."""

    def __init__(self) -> None:
        self.all: List[_Asked] = []
        self.full = threading.Event()
        self.sent = threading.Event()


class Guard(_Base):
    """Validates keys with apikeyd, from any thread. May be created before a process forks. Close it at the end."""

    _lock: threading.Lock
    _owner = 0

    def _calls(self) -> Tuple[Any, Any, Any]:
        if self._owner != os.getpid():
            with _OPENING:
                if self._owner != os.getpid():
                    # A channel does not survive a fork.
                    self._lock, self._window = threading.Lock(), None
                    self._channel = self._open(grpc)
                    self._owner = os.getpid()
        return self._channel

    _channel: Tuple[Any, Any, Any]
    _window: Optional[_Window]

    def close(self) -> None:
        """Gives a lease back, and closes the connection. Questions in flight get no decision."""
        if self._local is not None:
            self._local.close()
        if self._owner == os.getpid():
            self._channel[0].close()

    def __enter__(self) -> "Guard":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def validate(self, question: Question) -> Verdict:
        """Asks about one key. Check the verdict: a denial is not an exception.

        :raises NoDecision: the key must be treated as denied
        """
        return _at_once(self._validate(question))

    def admit(self, rule: Rule, header: Header, peer: str) -> Tuple[Optional[Verdict], Reply]:
        """Decides about a request, for middleware."""
        return _at_once(self._admit(rule, header, peer))

    async def _invoke(self, call: Any, request: Any, arguments: Mapping[str, Any]) -> Any:
        return call(request, **arguments)

    async def _sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    async def _join(self, asked: _Asked, end: float) -> _Asked:
        self._calls()
        with self._lock:
            window = self._window
            leads = window is None
            if window is None:
                window = self._window = _Window()
            window.all.append(asked)
            if len(window.all) == _MAX_BATCH:
                self._window = None
                window.full.set()
        if not leads:
            sent = window.sent.wait(max(0.0, end - time.monotonic()))
            # The batch may still write to the pending question: it must not be read any more.
            return asked if sent else _Asked(asked.request)
        try:
            window.full.wait(self._batch_window)
            with self._lock:
                if self._window is window:
                    self._window = None
            await self._send_batch(window.all, end)
        finally:
            window.sent.set()
        return asked


_OPENING = threading.Lock()


class AsyncGuard(_Base):
    """Validates keys with apikeyd, from one event loop at a time. May be created before the loop runs. Close it at the
    end."""

    _owner: Tuple[int, Any] = (0, None)
    _channel: Tuple[Any, Any, Any]
    _waiting: List[Tuple[_Asked, "asyncio.Future[None]"]]
    _tasks: Set["asyncio.Task[None]"]

    def _calls(self) -> Tuple[Any, Any, Any]:
        owner = (os.getpid(), asyncio.get_running_loop())
        if self._owner != owner:
            # A channel works only in its process and its event loop.
            self._owner, self._waiting, self._tasks = owner, [], set()
            self._channel = self._open(grpc.aio)
        return self._channel

    async def close(self) -> None:
        """Gives a lease back, and closes the connection. Questions in flight get no decision."""
        if self._local is not None:
            await asyncio.get_running_loop().run_in_executor(None, self._local.close)
        if self._owner == (os.getpid(), asyncio.get_running_loop()):
            await self._channel[0].close()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def __aenter__(self) -> "AsyncGuard":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def validate(self, question: Question) -> Verdict:
        """Asks about one key. Check the verdict: a denial is not an exception.

        :raises NoDecision: the key must be treated as denied
        """
        return await self._validate(question)

    async def admit(self, rule: Rule, header: Header, peer: str) -> Tuple[Optional[Verdict], Reply]:
        """Decides about a request, for middleware."""
        return await self._admit(rule, header, peer)

    async def _invoke(self, call: Any, request: Any, arguments: Mapping[str, Any]) -> Any:
        return await call(request, **arguments)

    async def _sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def _join(self, asked: _Asked, end: float) -> _Asked:
        self._calls()
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        self._waiting.append((asked, done))
        if len(self._waiting) == _MAX_BATCH:
            self._flush()
        elif len(self._waiting) == 1:
            loop.call_later(self._batch_window, self._flush)
        try:
            await asyncio.wait_for(done, max(0.0, end - time.monotonic()))
            return asked
        except asyncio.TimeoutError:
            # The batch may still write to the pending question: it must not be read any more.
            return _Asked(asked.request)

    def _flush(self) -> None:
        if self._waiting:
            batch, self._waiting = self._waiting, []
            task = asyncio.get_running_loop().create_task(self._send_and_tell(batch))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _send_and_tell(self, batch: Sequence[Tuple[_Asked, "asyncio.Future[None]"]]) -> None:
        try:
            await self._send_batch([asked for asked, _ in batch], time.monotonic() + self._deadline)
        finally:
            for _, done in batch:
                if not done.done():
                    done.set_result(None)
