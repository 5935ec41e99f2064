"""Guards backends by API keys that an apikeyd server decides about.

    guard = apikeyd.AsyncGuard("127.0.0.1:50051", key_file="guard.key")
    app = apikeyd.ASGIGuard(app, guard, apikeyd.Rule("traces:read"))

No decision is a no: whatever goes wrong, the application is not called. No key is in any exception, log or metric.
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
