"""Behaviour that the vectors do not cover."""

import asyncio
import logging
import os
import tempfile
import threading
import traceback
import unittest
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import grpc.aio
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

import apikeyd
from apikeyd._generated import auth_pb2

OWN_KEY = "audit_v1_GuardsOwnKey_000000001"
GOOD = auth_pb2.ValidateKeyResponse(decision=auth_pb2.DECISION_VALID, valid=True)


class Refused(Exception):
    pass


class Unknown(Exception):
    """UNAUTHENTICATED with an ErrorInfo of this domain."""


class Server:
    """Answers by a function, and counts calls. A short one leaves out the last answer of a batch."""

    short = False

    def __init__(self, answer=lambda request: GOOD):
        self.answer, self.singles, self.sizes, self.lock = answer, 0, [], threading.Lock()
        self.server = grpc.server(ThreadPoolExecutor(8))
        methods = {
            "ValidateKey": grpc.unary_unary_rpc_method_handler(
                self.single,
                auth_pb2.ValidateKeyRequest.FromString,
                auth_pb2.ValidateKeyResponse.SerializeToString,
            ),
            "BatchValidateKeys": grpc.unary_unary_rpc_method_handler(
                self.batch,
                auth_pb2.BatchValidateKeysRequest.FromString,
                auth_pb2.BatchValidateKeysResponse.SerializeToString,
            ),
        }
        handler = grpc.method_handlers_generic_handler("apikey.v1.ApiKeyAuth", methods)
        self.server.add_generic_rpc_handlers((handler,))
        self.address = f"http://127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}"
        self.server.start()

    def single(self, request, context):
        with self.lock:
            self.singles += 1
        return self.guarded(request, context)

    def batch(self, batch, context):
        with self.lock:
            self.sizes.append(len(batch.requests))
        answers = [self.guarded(request, context) for request in batch.requests]
        return auth_pb2.BatchValidateKeysResponse(responses=answers[:-1] if self.short else answers)

    def guarded(self, request, context):
        try:
            return self.answer(request)
        except Refused as refused:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(refused))
        except Unknown as unknown:
            detail = any_pb2.Any()
            detail.Pack(error_details_pb2.ErrorInfo(reason="CREDENTIAL_INVALID", domain=str(unknown)))
            status = status_pb2.Status(code=16, message="no", details=[detail])
            context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "no")


class Case(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.key_file = Path(folder.name, "guard.key")
        self.key_file.write_text(OWN_KEY)

    def serve(self, *args):
        server = Server(*args)
        self.addCleanup(server.server.stop, None)
        return server

    def guard(self, server, **options):
        guard = apikeyd.Guard(server.address, key_file=self.key_file, **{"deadline": 10, **options})
        self.addCleanup(guard.close)
        return guard


class Options(Case):
    def test_what_cannot_work_is_refused(self):
        for options in (
            {"address": "ftp://host:1"},
            {"address": ""},
            {"address": "://host:1"},
            {"address": "http://host:1/path"},
            {"deadline": 0},
            {"batch_window": 1},
            {"batch_window": -1},
            {"credentials": grpc.ssl_channel_credentials()},
        ):
            with self.subTest(options), self.assertRaises(ValueError):
                apikeyd.Guard(**{"address": "host:1", "key_file": self.key_file, **options})

    def test_a_key_file_without_a_key_is_named_and_what_it_holds_is_not(self):
        for content in ("", " \n", "audit_v1_two words", "k" * 5000):
            self.key_file.write_text(content)
            with self.subTest(content[:20]), self.assertRaises(ValueError) as raised:
                apikeyd.Guard("host:1", key_file=self.key_file)
            self.assertEqual(str(raised.exception), f"{self.key_file} holds no key")
        self.assertRaises(FileNotFoundError, apikeyd.Guard, "host:1", key_file="/nowhere")

    def test_rules_that_cannot_hold_are_refused(self):
        for fields in (
            {"cost": 0},
            {"cost": 1_000_000_001},
            {"trusted_hops": 17},
            {"trusted_hops": -1},
            {"key_headers": ()},
            {"key_headers": "x-api-key"},
            {"key_headers": ("a b",)},
        ):
            with self.subTest(fields), self.assertRaises(ValueError):
                apikeyd.Rule(None, **fields)
        self.assertRaises(TypeError, apikeyd.Rule)
        self.assertRaises(ValueError, apikeyd.GrpcGuard, None, {"Check": None})
        self.assertRaises(TypeError, apikeyd.GrpcGuard, None, {"*": "traces:read"})
        self.assertRaises(TypeError, apikeyd.ASGIGuard, None, None, None)
        self.assertRaises(TypeError, apikeyd.WSGIGuard, None, None, None)


class OwnKey(Case):
    def test_a_key_that_is_refused_is_read_again_whatever_its_file_looks_like(self):
        new = OWN_KEY[::-1]

        class Checking(Server):
            def guarded(self, request, context):
                if ("authorization", f"Bearer {new}") not in context.invocation_metadata():
                    context.abort(grpc.StatusCode.UNAUTHENTICATED, "no")
                return GOOD

        server = Checking()
        self.addCleanup(server.server.stop, None)
        guard = self.guard(server)
        before = os.stat(self.key_file)
        with open(self.key_file, "r+") as file:
            file.write(new)
        os.utime(self.key_file, ns=(before.st_atime_ns, before.st_mtime_ns))
        self.assertTrue(guard.validate(apikeyd.Question("k")))
        self.assertEqual(server.singles, 2)

    def test_only_apikeyd_can_say_that_the_guard_asks_wrongly(self):
        for domain, wrongly in (("apikey.v1", True), ("proxy.example", False)):

            def unknown(request):
                raise Unknown(domain)

            with self.subTest(domain), self.assertRaises(apikeyd.NoDecision) as raised:
                self.guard(self.serve(unknown)).validate(apikeyd.Question("k"))
            self.assertEqual(raised.exception.misconfigured, wrongly)


class Secrets(Case):
    def test_no_exception_repeats_a_key_nor_what_the_server_says(self):
        def echo(request):
            raise Refused(request.key)

        guard = self.guard(self.serve(echo))
        for key in ("audit_v1_X", "audit_v1_\ud800", "audit_v1_\n"):
            with self.subTest(repr(key)), self.assertRaises(apikeyd.NoDecision) as raised:
                guard.validate(apikeyd.Question(key))
            error = raised.exception
            text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
            self.assertNotIn("audit_v1_", text)
            self.assertIsNone(error.__context__)
        self.assertNotIn("audit_v1_", repr(apikeyd.Question("audit_v1_X")))

    def test_a_hook_that_fails_changes_no_decision(self):
        def broken(seen):
            raise RuntimeError("broken")

        guard = self.guard(self.serve(), observe=broken)
        with self.assertLogs("apikeyd", logging.ERROR):
            self.assertTrue(guard.validate(apikeyd.Question("k")))

    def test_a_fault_of_the_configuration_is_logged_once(self):
        guard = self.guard(self.serve())
        app = apikeyd.WSGIGuard(None, guard, apikeyd.Rule(None, trusted_hops=1))
        with self.assertLogs("apikeyd", logging.ERROR) as logged:
            for _ in range(3):
                app({"HTTP_X_API_KEY": "k"}, lambda status, headers: self.assertEqual(status[:3], "500"))
        self.assertEqual(len(logged.output), 1)


def only_bad(request):
    if request.key == "bad":
        raise Refused("bad")
    return GOOD


class Batches(Case):
    def test_a_batch_of_threads_is_full_at_a_hundred(self):
        server = self.serve()
        guard = self.guard(server, batch_window=0.1)
        with ThreadPoolExecutor(250) as pool:
            verdicts = list(pool.map(guard.validate, [apikeyd.Question("k")] * 250))
        self.assertTrue(all(verdicts))
        self.assertEqual((sum(server.sizes), server.singles), (250, 0))
        self.assertLessEqual(max(server.sizes), 100)
        self.assertLess(len(server.sizes), 100)

    def test_a_batch_of_tasks_is_full_at_a_hundred(self):
        server = self.serve()

        async def together():
            async with apikeyd.AsyncGuard(
                server.address, key_file=self.key_file, deadline=10, batch_window=0.001
            ) as guard:
                return await asyncio.gather(*(guard.validate(apikeyd.Question("k")) for _ in range(250)))

        self.assertTrue(all(asyncio.run(together())))
        self.assertEqual(sorted(server.sizes), [50, 100, 100])

    def test_a_question_that_is_refused_fails_nobody_else_in_its_batch(self):
        server = self.serve(only_bad)
        keys = ["bad", "one", "two"]

        async def together():
            async with apikeyd.AsyncGuard(
                server.address, key_file=self.key_file, deadline=10, batch_window=0.05
            ) as guard:
                asked = (guard.validate(apikeyd.Question(key)) for key in keys)
                return await asyncio.gather(*asked, return_exceptions=True)

        guard = self.guard(server, batch_window=0.1)
        with ThreadPoolExecutor(3) as pool:
            threads = [pool.submit(guard.validate, apikeyd.Question(key)) for key in keys]
        self.assertIsInstance(threads[0].exception(), apikeyd.NoDecision)
        self.assertTrue(threads[1].result() and threads[2].result())
        tasks = asyncio.run(together())
        self.assertIsInstance(tasks[0], apikeyd.NoDecision)
        self.assertTrue(tasks[1].ok and tasks[2].ok)

    def test_a_batch_that_comes_back_short_decides_nothing(self):
        server = self.serve()
        server.short = True
        guard = self.guard(server, batch_window=0.1)
        with ThreadPoolExecutor(2) as pool:
            threads = [pool.submit(guard.validate, apikeyd.Question("k")) for _ in range(2)]
        for thread in threads:
            self.assertIsInstance(thread.exception(), apikeyd.NoDecision)

    def test_who_gives_up_in_a_batch_takes_nobody_along(self):
        asked, release = threading.Event(), threading.Event()

        def slowly(request):
            asked.set()
            release.wait(10)
            return GOOD

        server = self.serve(slowly)

        async def together():
            async with apikeyd.AsyncGuard(
                server.address, key_file=self.key_file, deadline=10, batch_window=0.01
            ) as guard:
                gone = asyncio.ensure_future(guard.validate(apikeyd.Question("one")))
                stays = asyncio.ensure_future(guard.validate(apikeyd.Question("two")))
                await asyncio.get_running_loop().run_in_executor(None, asked.wait, 10)
                gone.cancel()
                await asyncio.wait([gone])
                release.set()
                return gone.cancelled(), await stays

        cancelled, verdict = asyncio.run(together())
        self.assertTrue(cancelled and verdict.ok)


class Places(Case):
    def test_a_guard_serves_one_loop_after_another(self):
        server = self.serve()
        guard = apikeyd.AsyncGuard(server.address, key_file=self.key_file, deadline=10)

        async def ask():
            try:
                return await guard.validate(apikeyd.Question("k"))
            finally:
                await guard.close()

        self.assertTrue(asyncio.run(ask()) and asyncio.run(ask()))

    def test_a_rule_of_none_guards_nothing_and_asks_nobody(self):
        server = self.serve()

        def app(environ, start_response):
            return [b"open"]

        guarded = apikeyd.WSGIGuard(app, self.guard(server), lambda environ: None)
        self.assertEqual(guarded({}, None), [b"open"])
        self.assertEqual(server.singles, 0)

    def test_a_websocket_without_a_key_is_closed(self):
        async def ask(extensions):
            sent = []

            async def send(message):
                sent.append(message)

            guard = apikeyd.AsyncGuard("127.0.0.1:1", key_file=self.key_file)
            scope = {"type": "websocket", "headers": [], "extensions": extensions}
            await apikeyd.ASGIGuard(None, guard, apikeyd.Rule(None))(scope, None, send)
            return sent

        self.assertEqual([each["type"] for each in asyncio.run(ask({}))], ["websocket.close"])
        answered = asyncio.run(ask({"websocket.http.response": {}}))
        self.assertEqual(answered[0]["status"], 401)

    def test_a_method_has_the_narrowest_rule_and_without_one_lets_nobody_in(self):
        async def ask(rules, *methods):
            async def unary(request, context):
                return b""

            handlers = {name: grpc.unary_unary_rpc_method_handler(unary) for name in ("Open", "Closed")}
            guard = apikeyd.AsyncGuard("127.0.0.1:1", key_file=self.key_file)
            server = grpc.aio.server(interceptors=[apikeyd.GrpcGuard(guard, rules)])
            for service in ("p.S", "p.Other"):
                server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
            port = server.add_insecure_port("127.0.0.1:0")
            await server.start()
            try:
                async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                    return [(await channel.unary_unary(method)(b"").code()).name for method in methods]
            finally:
                await server.stop(None)

        rules = {"/p.S/Open": None, "/p.S/*": apikeyd.Rule(None)}
        methods = ("/p.S/Open", "/p.S/Closed", "/p.Other/Open")
        with self.assertLogs("apikeyd", logging.ERROR):
            codes = asyncio.run(ask(rules, *methods))
        self.assertEqual(codes, ["OK", "UNAUTHENTICATED", "INTERNAL"])
        self.assertEqual(asyncio.run(ask({**rules, "*": None}, "/p.Other/Open")), ["OK"])

    def test_a_channel_belongs_to_the_process_that_opened_it(self):
        server = self.serve()
        guard = self.guard(server)
        # As after a fork: nothing was opened in this process yet.
        self.assertTrue(guard.validate(apikeyd.Question("k")))
        opened, guard._owner = guard._channel, -1
        self.assertTrue(guard.validate(apikeyd.Question("k")))
        self.assertEqual(guard._owner, os.getpid())
        self.assertIsNot(guard._channel, opened)
        opened[0].close()


if __name__ == "__main__":
    unittest.main()
