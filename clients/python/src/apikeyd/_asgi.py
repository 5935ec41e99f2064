"""Middleware for ASGI: Starlette, FastAPI, Quart, Django and others."""

from typing import Any, Awaitable, Callable, Dict, MutableMapping, Optional, Union

from ._guard import AsyncGuard
from ._reply import Headers, Reply
from ._rule import Header, Rule, text_of

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class ASGIGuard:
    """Calls the application only when the key is valid. The verdict is then in ``scope["apikeyd.verdict"]``."""

    def __init__(
        self, app: App, guard: AsyncGuard, rule: Union[Rule, Callable[[Scope], Optional[Rule]]]
    ) -> None:
        """:param rule: for every request, or a function that returns the rule of a request, None for an open one"""
        if not isinstance(rule, Rule) and not callable(rule):
            raise TypeError("rule is neither a Rule nor a function")
        self._app, self._guard, self._rule = app, guard, rule

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            return await self._app(scope, receive, send)
        rule = self._rule if isinstance(self._rule, Rule) else self._rule(scope)
        if rule is None:
            return await self._app(scope, receive, send)
        peer = (scope.get("client") or ("",))[0]
        verdict, reply = await self._guard.admit(rule, _headers(scope), peer)
        if verdict is None or reply.status != 200:
            return await _refuse(reply, scope, send)
        limits = _raw(list(reply.limits))

        async def send_limits(message: MutableMapping[str, Any]) -> None:
            if message["type"] in ("http.response.start", "websocket.accept"):
                message = {**message, "headers": [*message.get("headers", ()), *limits]}
            await send(message)

        await self._app({**scope, "apikeyd.verdict": verdict}, receive, send_limits if limits else send)


def _headers(scope: Scope) -> Header:
    found: Dict[str, str] = {}
    for raw_name, value in scope["headers"]:
        name = raw_name.decode("latin-1").lower()
        found[name] = f"{found[name]}, {text_of(value)}" if name in found else text_of(value)
    return found.get


async def _refuse(reply: Reply, scope: Scope, send: Send) -> None:
    kind = scope["type"]
    if kind == "websocket" and "websocket.http.response" not in scope.get("extensions", {}):
        return await send({"type": "websocket.close", "code": 1008, "reason": reply.word})
    prefix = "websocket.http" if kind == "websocket" else "http"
    await send({"type": f"{prefix}.response.start", "status": reply.status, "headers": _raw(reply.headers)})
    await send({"type": f"{prefix}.response.body", "body": reply.body})


def _raw(headers: Headers) -> list:
    return [(name.encode(), value.encode()) for name, value in headers]
