"""Guards backends with API keys that an apikeyd server validates.

    guard = apikeyd.AsyncGuard("127.0.0.1:50051", key_file="guard.key")
    app = apikeyd.ASGIGuard(app, guard, apikeyd.Rule("traces:read"))

Without a decision the application is not called, whatever the error. Exceptions, logs and metrics contain no key.
"""

from ._asgi import ASGIGuard
from ._guard import AsyncGuard, Guard
from ._grpc_aio import GrpcGuard, current_verdict
from ._rule import Rule
from ._verdict import Decision, Limit, NoDecision, Observation, Question, Verdict
from ._wsgi import WSGIGuard

__all__ = [
    "ASGIGuard",
    "AsyncGuard",
    "Decision",
    "GrpcGuard",
    "Guard",
    "Limit",
    "NoDecision",
    "Observation",
    "Question",
    "Rule",
    "Verdict",
    "WSGIGuard",
    "current_verdict",
]
