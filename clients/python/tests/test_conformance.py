"""The vectors of clients/conformance, over ASGI, WSGI and grpc.aio; test/clients/python.test.ts runs this beside servers."""

import asyncio
import json
import logging
import os
import re
import socket
import tempfile
import unittest
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import grpc.aio
from google.rpc import error_details_pb2, status_pb2

import apikeyd
from apikeyd._rule import Rule

FOLDER = os.environ.get("APIKEYD_CONFORMANCE")
SERVERS = json.loads(os.environ.get("APIKEYD_MISBEHAVING", "[{},{},{}]"))
ALL = json.loads(Path(FOLDER, "vectors.json").read_text()) if FOLDER else {}
TIMEOUT = 30


class Told:
    """The response to a client."""

    def __init__(self, status=0, code="", message="", headers=(), body=b"", handled=0):
        self.status, self.code, self.message = status, code, message
        self.headers, self.body, self.handled = dict(headers), body, handled

    def __repr__(self):
        return repr(vars(self))


def raw(headers):
    return [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]


class AsgiBinding:
    """Calls the middleware as a server does."""

    http = True

    def __init__(self, options, rule):
        self.guard = apikeyd.AsyncGuard(**options)
        self.app = apikeyd.ASGIGuard(self.handler, self.guard, rule)
        self.loop = asyncio.new_event_loop()

    async def handler(self, scope, receive, send):
        assert scope["apikeyd.verdict"].ok
        scope["handled"].append(1)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def ask(self, headers):
        sent, handled = [], []

        async def send(message):
            sent.append(message)

        scope = {"type": "http", "client": ("127.0.0.1", 1), "headers": raw(headers), "handled": handled}
        await self.app(scope, None, send)
        start, body = sent
        said = [(name.decode(), value.decode()) for name, value in start["headers"]]
        return Told(start["status"], headers=said, body=body["body"], handled=len(handled))

    def ask_all(self, requests):
        async def together():
            return await asyncio.gather(*map(self.ask, requests))

        return self.loop.run_until_complete(asyncio.wait_for(together(), TIMEOUT))

    def close(self):
        self.loop.run_until_complete(self.guard.close())
        self.loop.close()


class WsgiBinding:
    http = True

    def __init__(self, options, rule):
        self.guard = apikeyd.Guard(**options)
        self.app = apikeyd.WSGIGuard(self.handler, self.guard, rule)
        self.pool = ThreadPoolExecutor(8)

    def handler(self, environ, start_response):
        assert environ["apikeyd.verdict"]
        environ["handled"].append(1)
        start_response("200 OK", [])
        return [b""]

    def ask(self, headers):
        said, handled = [], []
        environ = {"HTTP_" + name.upper().replace("-", "_"): value for name, value in headers.items()}
        environ.update(REMOTE_ADDR="127.0.0.1", handled=handled)
        body = b"".join(self.app(environ, lambda *args: said.extend(args)))
        return Told(int(said[0].split()[0]), headers=said[1], body=body, handled=len(handled))

    def ask_all(self, requests):
        return list(self.pool.map(self.ask, requests, timeout=TIMEOUT))

    def close(self):
        self.guard.close()
        self.pool.shutdown()


class GrpcBinding:
    """The unary and the streaming method take turns."""

    http = False

    def __init__(self, options, rule):
        self.loop = asyncio.new_event_loop()
        self.handled = []
        self.guard = apikeyd.AsyncGuard(**options)
        self.loop.run_until_complete(self.start(rule))

    async def start(self, rule):
        async def unary(request, context):
            assert apikeyd.current_verdict.get().ok
            self.handled.append(request)
            return b""

        async def stream(request, context):
            assert apikeyd.current_verdict.get().ok
            self.handled.append(request)
            yield b""
            yield b""

        methods = {
            "Unary": grpc.unary_unary_rpc_method_handler(unary),
            "Stream": grpc.unary_stream_rpc_method_handler(stream),
        }
        self.server = grpc.aio.server(interceptors=[apikeyd.GrpcGuard(self.guard, {"/t.T/*": rule})])
        self.server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t.T", methods),))
        port = self.server.add_insecure_port("127.0.0.1:0")
        await self.server.start()
        self.channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
        self.calls = 0

    async def ask(self, headers):
        self.calls += 1
        mark = b"%d" % self.calls
        if self.calls % 2:
            call = self.channel.unary_unary("/t.T/Unary")(mark, metadata=tuple(headers.items()))
        else:
            call = self.channel.unary_stream("/t.T/Stream")(mark, metadata=tuple(headers.items()))
            while await self.read(call) is not grpc.aio.EOF:
                pass
        code = await call.code()
        place = await (call.initial_metadata() if code is grpc.StatusCode.OK else call.trailing_metadata())
        said = {name: value for name, value in place if name.startswith("ratelimit")}
        for name, value in await call.trailing_metadata():
            if name == "grpc-status-details-bin":
                for detail in status_pb2.Status.FromString(value).details:
                    info = error_details_pb2.RetryInfo()
                    assert detail.Unpack(info)
                    said["retry-after"] = str(info.retry_delay.seconds)
        return Told(0, code.name, await call.details(), said, handled=self.handled.count(mark))

    @staticmethod
    async def read(call):
        try:
            return await call.read()
        except grpc.aio.AioRpcError:
            return grpc.aio.EOF

    def ask_all(self, requests):
        async def together():
            return await asyncio.gather(*map(self.ask, requests))

        return self.loop.run_until_complete(asyncio.wait_for(together(), TIMEOUT))

    def close(self):
        async def end():
            await self.channel.close()
            await self.server.stop(None)
            await self.guard.close()

        self.loop.run_until_complete(end())
        self.loop.close()


class Said(logging.Handler):
    def __init__(self):
        super().__init__()
        self.lines = []

    def emit(self, record):
        self.lines.append(logging.Formatter().format(record))


@unittest.skipUnless(FOLDER, "needs APIKEYD_CONFORMANCE")
class Conformance(unittest.TestCase):
    maxDiff = None

    def test_scopes(self):
        for each in ALL["requiredScopes"]:
            with self.subTest(each["scope"]):
                if each["ok"]:
                    Rule(each["scope"])
                else:
                    self.assertRaises(ValueError, Rule, each["scope"])

    def test_addresses(self):
        for each in ALL["addresses"]:
            with self.subTest(each["forwardedFor"]):
                rule = Rule(None, trusted_hops=each["trustedHops"])
                try:
                    found = rule.client_ip({"x-forwarded-for": each["forwardedFor"]}.get, "192.0.2.1")
                except apikeyd.NoDecision as error:
                    self.assertTrue(error.misconfigured)
                    found = None
                self.assertEqual(found, each["clientIp"])

    def test_asgi(self):
        self.run_all(AsgiBinding, SERVERS[0])

    def test_wsgi(self):
        self.run_all(WsgiBinding, SERVERS[1])

    def test_grpc(self):
        self.run_all(GrpcBinding, SERVERS[2])

    def run_all(self, binding, server):
        ran = 0
        for vector in ALL["vectors"]:
            if vector.get("only") == "http" and not binding.http:
                continue
            with self.subTest(vector["name"]):
                self.run_vector(binding, server, vector)
            ran += 1
        self.assertGreater(ran, 60)

    def run_vector(self, binding, server, vector):
        told_of = vector.get("guard", {})
        said, outcomes, observed = Said(), [], []
        logging.getLogger().addHandler(said)
        self.addCleanup(logging.getLogger().removeHandler, said)

        def observe(seen):
            outcomes.append(seen.outcome)
            observed.append(repr(seen))

        with tempfile.TemporaryDirectory() as folder:
            key_file = Path(folder, "guard.key")
            key_file.write_text(ALL["callingKey"])
            options = dict(
                address=nobody() if vector.get("unreachable") else server["grpc"],
                key_file=key_file,
                deadline=told_of.get("deadlineMs", 10_000) / 1000,
                batch_window=0.005 if told_of.get("batch") else 0,
                observe=observe,
            )
            names = {"cost": "cost", "trustedHops": "trusted_hops", "keyHeaders": "key_headers"}
            rule = Rule(told_of.get("scope"), **{to: told_of[name] for name, to in names.items() if name in told_of})
            bound = binding(options, rule)
            try:
                for step in vector["steps"]:
                    outcomes.clear()
                    self.run_step(bound, server, step, key_file, outcomes, observed)
            finally:
                bound.close()
        for line in [*said.lines, *observed]:
            self.assertNotIn("audit_v1_", line)

    def run_step(self, bound, server, step, key_file, outcomes, observed):
        if "keyFile" in step:
            if step["keyFile"] is None:
                key_file.unlink()
            else:
                beside = key_file.with_suffix(".new")
                beside.write_text(step["keyFile"])
                beside.replace(key_file)
        if "server" in step:
            control(server, "PUT", "/script", json.dumps(step["server"]).encode())
        answers = bound.ask_all([request["headers"] for request in step["requests"]])
        for request, told in zip(step["requests"], answers):
            self.check(request["expect"], told, bound.http)
            observed.append(repr(told))
        self.assertEqual(sorted(outcomes), sorted(each["expect"]["outcome"] for each in step["requests"]))
        if "calls" in step:
            self.check_calls(step, json.loads(control(server, "GET", "/seen")))

    def check_calls(self, step, calls):
        self.assertTrue(step["calls"]["min"] <= len(calls) <= step["calls"]["max"], len(calls))
        for call in calls:
            self.assertTrue(call["method"].endswith("/" + step.get("method", "")) or "method" not in step)
        if len(calls) > 1:
            self.assertGreaterEqual(calls[1]["at"] - calls[0]["at"], step.get("minGapMs", 0))
        for name, value in step.get("sees", {}).items():
            self.assertEqual(calls[-1]["requests"][0].get(name), value, name)

    def check(self, expect, told, http):
        self.assertEqual(told.handled, int(expect["handled"]), "handled")
        word = expect.get("body", {}).get("error", "")
        if http:
            self.assertEqual(told.status, expect["status"])
            self.assertEqual(told.body.decode(), '{"error":"%s"}' % word if word else "")
            if word:
                self.assertEqual(told.headers["content-type"], "application/json")
                self.assertEqual(told.headers["cache-control"], "no-store")
        else:
            self.assertEqual((told.code, told.message), (expect["grpc"], word))

        def holds(name):
            return http or name.startswith("ratelimit") or name == "retry-after"

        for name, value in expect.get("headers", {}).items():
            if holds(name):
                self.assertEqual(told.headers.get(name), value, name)
        for name, pattern in expect.get("headersMatch", {}).items():
            if holds(name):
                self.assertRegex(told.headers.get(name, ""), re.compile(f"^(?:{pattern})$"), name)
        for name in expect.get("absent", ()):
            if holds(name):
                self.assertNotIn(name, told.headers)


def control(server, method, path, body=None):
    request = urllib.request.Request(f"http://{server['control']}{path}", body, method=method)
    with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
        return response.read()


def nobody():
    """An address without a listener."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{listener.getsockname()[1]}"


if __name__ == "__main__":
    unittest.main()
