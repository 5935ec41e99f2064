"""Interceptor for servers of grpc.aio."""

import inspect
from contextvars import ContextVar
from typing import Any, Awaitable, Callable, Dict, Mapping, Optional, Tuple
from urllib.parse import unquote

import grpc
import grpc.aio
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

from ._guard import AsyncGuard
from ._reply import Reply
from ._rule import Header, Rule, text_of
from ._verdict import Verdict

#: The verdict on the call that is being handled.
current_verdict: "ContextVar[Verdict]" = ContextVar("apikeyd_verdict")

_KINDS = {
    (False, False): ("unary_unary", grpc.unary_unary_rpc_method_handler),
    (False, True): ("unary_stream", grpc.unary_stream_rpc_method_handler),
    (True, False): ("stream_unary", grpc.stream_unary_rpc_method_handler),
    (True, True): ("stream_stream", grpc.stream_stream_rpc_method_handler),
}


class GrpcGuard(grpc.aio.ServerInterceptor):
    """Calls the handler only when the key is valid: ``grpc.aio.server(interceptors=[GrpcGuard(guard, rules)])``.
    Handlers must be asynchronous. The verdict is then in ``current_verdict``. The key is validated when a call begins."""

    def __init__(self, guard: AsyncGuard, rules: Mapping[str, Optional[Rule]]) -> None:
        """
        :param rules: by ``/package.Service/Method``, ``/package.Service/*`` or ``*``; the most specific applies. None
            admits every call; calls of a method without a rule are denied
        """
        for method, rule in rules.items():
            if method != "*" and method.count("/") != 2:
                raise ValueError(f"rules: {method!r} is not /package.Service/Method, /package.Service/* or *")
            if rule is not None and not isinstance(rule, Rule):
                raise TypeError(f"rules: that of {method!r} is no Rule")
        self._guard, self._rules = guard, dict(rules)

    async def intercept_service(
        self, continuation: Callable[..., Awaitable[Any]], handler_call_details: Any
    ) -> Any:
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        names = (method, method.rpartition("/")[0] + "/*", "*")
        name = next((name for name in names if name in self._rules), None)
        rule = None if name is None else self._rules[name]
        if handler is None or (name is not None and rule is None):
            return handler
        kind, wrap = _KINDS[handler.request_streaming, handler.response_streaming]
        behaviour = getattr(handler, kind)

        async def call(request: Any, context: Any) -> Any:
            admitted = await self._admit(rule, context)
            response = await behaviour(request, admitted)
            await admitted.begin()
            return response

        async def stream(request: Any, context: Any) -> Any:
            admitted = await self._admit(rule, context)
            responses = behaviour(request, admitted)
            if inspect.isawaitable(responses):
                # The handler writes its responses through the context.
                await responses
                return
            async for response in responses:
                await admitted.begin()
                yield response
            await admitted.begin()

        return wrap(
            stream if handler.response_streaming else call, handler.request_deserializer, handler.response_serializer
        )

    async def _admit(self, rule: Optional[Rule], context: Any) -> "_Admitted":
        if rule is None:
            verdict, reply = None, self._guard._no_rule()
        else:
            verdict, reply = await self._guard.admit(rule, _headers(context), _peer(context.peer()))
        if verdict is None or reply.status != 200:
            await context.abort(reply.code, reply.word, (*reply.limits, *_details(reply)))
            raise AssertionError("abort returned")
        current_verdict.set(verdict)
        return _Admitted(context, reply.limits)


class _Admitted:
    """A call's context that adds the limits to the headers of the response when they are sent."""

    def __init__(self, context: Any, limits: Tuple[Tuple[str, str], ...]) -> None:
        self._context, self._limits = context, limits

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    async def begin(self) -> None:
        if self._limits:
            await self.send_initial_metadata(())

    async def send_initial_metadata(self, metadata: Any) -> None:
        limits, self._limits = self._limits, ()
        await self._context.send_initial_metadata((*metadata, *limits))

    async def write(self, message: Any) -> None:
        await self.begin()
        await self._context.write(message)


def _headers(context: Any) -> Header:
    found: Dict[str, str] = {}
    for name, value in context.invocation_metadata() or ():
        text = text_of(value) if isinstance(value, bytes) else value
        found[name] = f"{found[name]}, {text}" if name in found else text
    return found.get


def _peer(text: str) -> str:
    """gRPC writes ``ipv4:127.0.0.1:80``, ``ipv6:%5B::1%5D:80`` and ``unix:…``."""
    family, _, address = unquote(text).partition(":")
    return address if family in ("ipv4", "ipv6") else ""


def _details(reply: Reply) -> Tuple[Tuple[str, bytes], ...]:
    if not reply.retry_after:
        return ()
    detail = any_pb2.Any()
    detail.Pack(error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=reply.retry_after)))
    status = status_pb2.Status(code=reply.code.value[0], message=reply.word, details=[detail])
    return (("grpc-status-details-bin", status.SerializeToString()),)
