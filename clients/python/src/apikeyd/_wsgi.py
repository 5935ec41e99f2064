"""Middleware for WSGI: Flask, Django, Bottle and others."""

from http import HTTPStatus
from typing import Any, Callable, Dict, Iterable, Optional, Union

from ._guard import Guard
from ._rule import Header, Rule, text_of

Environ = Dict[str, Any]
StartResponse = Callable[..., Any]


class WSGIGuard:
    """Calls the application only when the key is valid. The verdict is then in ``environ["apikeyd.verdict"]``."""

    def __init__(
        self,
        app: Callable[[Environ, StartResponse], Iterable[bytes]],
        guard: Guard,
        rule: Union[Rule, Callable[[Environ], Optional[Rule]]],
    ) -> None:
        """:param rule: for every request, or a function that returns the rule of a request, None for an open one"""
        if not isinstance(rule, Rule) and not callable(rule):
            raise TypeError("rule is neither a Rule nor a function")
        self._app, self._guard, self._rule = app, guard, rule

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        rule = self._rule if isinstance(self._rule, Rule) else self._rule(environ)
        if rule is None:
            return self._app(environ, start_response)
        verdict, reply = self._guard.admit(rule, _headers(environ), environ.get("REMOTE_ADDR", ""))
        if verdict is None or reply.status != 200:
            start_response(f"{reply.status} {HTTPStatus(reply.status).phrase}", reply.headers)
            return [reply.body]

        def start(status: str, headers: list, *exc_info: Any) -> Any:
            return start_response(status, [*headers, *reply.limits], *exc_info)

        return self._app({**environ, "apikeyd.verdict": verdict}, start)


def _headers(environ: Environ) -> Header:
    def header(name: str) -> Optional[str]:
        value = environ.get("HTTP_" + name.upper().replace("-", "_"))
        # WSGI reads bytes as Latin-1.
        return None if value is None else text_of(value.encode("latin-1"))

    return header
