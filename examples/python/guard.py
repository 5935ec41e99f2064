"""A backend that lets in whose key is good for traces:read."""

import json
import math
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

sys.path.insert(0, str(Path(__file__).parent / "generated"))
from apikey.v1 import auth_pb2, auth_pb2_grpc  # noqa: E402

DEADLINE_SECONDS = 0.5
# UNAVAILABLE says that no decision was made, so asking again is safe. The cost is taken by a decision only.
RETRIES = {
    "methodConfig": [
        {
            "name": [{"service": "apikey.v1.ApiKeyAuth", "method": "ValidateKey"}],
            "retryPolicy": {
                "maxAttempts": 3,
                "initialBackoff": "0.05s",
                "maxBackoff": "0.2s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ]
}
channel = grpc.insecure_channel(
    os.environ.get("APIKEYD_ADDRESS", "127.0.0.1:50051"),
    options=[("grpc.service_config", json.dumps(RETRIES))],
)
apikeyd = auth_pb2_grpc.ApiKeyAuthStub(channel)
OWN_KEY = Path(os.environ["APIKEYD_KEY_FILE"]).read_text().strip()


def decide(key: str, client_ip: str):
    """Status, headers and body for a caller with this key."""
    request = auth_pb2.ValidateKeyRequest(key=key, required_scope="traces:read", client_ip=client_ip)
    credential = (("authorization", f"Bearer {OWN_KEY}"),)
    try:
        answer = apikeyd.ValidateKey(request, timeout=DEADLINE_SECONDS, metadata=credential)
    except grpc.RpcError as error:
        return 503, retry_after_of(error), {"error": "no decision"}
    decision = auth_pb2.Decision.Name(answer.decision).removeprefix("DECISION_")
    if answer.valid:
        limits = answer.rate_limits
        headers = {"RateLimit-Remaining": str(limits[0].remaining)} if limits else {}
        return 200, headers, {"traces": []}
    if decision in ("MALFORMED", "NOT_FOUND"):
        return 401, {"WWW-Authenticate": "Bearer"}, {"error": decision}
    if decision in ("RATE_LIMITED", "LOCKED_OUT"):
        return 429, seconds_header(answer.retry_after), {"error": decision}
    return 403, {}, {"error": decision}


def retry_after_of(error):
    """What the server says in its error details."""
    status = rpc_status.from_call(error)
    for detail in status.details if status else ():
        info = error_details_pb2.RetryInfo()
        if detail.Unpack(info):
            return seconds_header(info.retry_delay)
    return {}


def seconds_header(duration):
    return {"Retry-After": str(math.ceil(duration.seconds + duration.nanos / 1e9))}


class Guard(BaseHTTPRequestHandler):
    def do_GET(self):
        scheme, _, key = self.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not key:
            status, headers, body = 401, {"WWW-Authenticate": "Bearer"}, {"error": "send a key"}
        else:
            status, headers, body = decide(key.strip(), self.client_address[0])
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *_):
        """Requests are not logged: their headers hold keys."""


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", int(os.environ.get("PORT", "8000"))), Guard)
    print(f"listening on {server.server_port}", flush=True)
    server.serve_forever()
