"""Decisions under a lease: that it ends, that facts go, that decisions are reported."""

import json
import os
import unittest
from pathlib import Path

from google.protobuf import duration_pb2, json_format, timestamp_pb2

from apikeyd import Question
from apikeyd._generated import auth_pb2, key_pb2
from apikeyd._local import LocalKeys, LocalState

KEY = "audit_v1_ssssssssssssssssssssss"


class TestClock:
    """Passes only when a test says so."""

    __test__ = False

    def __init__(self):
        self.wall, self.mono, self.looked = 1_772_366_400.0, 1_000.0, lambda: None

    def now(self):
        self.looked()
        return self.wall

    def monotonic(self):
        return self.mono

    def advance(self, seconds):
        self.wall += seconds
        self.mono += seconds


def stamp(seconds):
    return timestamp_pb2.Timestamp(seconds=int(seconds), nanos=int(round(seconds % 1 * 1_000)) * 1_000_000)


class Scene:
    """A guard's keys with the answers of a server."""

    def __init__(self):
        self.clock, self.warnings = TestClock(), []
        self.keys = LocalKeys(3, self.warnings.append, self.clock)

    def sync(self, took=0.0, **answer):
        request, start, mono = self.keys.request(), self.clock.wall, self.clock.mono
        self.clock.advance(took)
        given = dict(
            epoch="e",
            revision=5,
            grant_id="g",
            lease=duration_pb2.Duration(seconds=1),
            server_time=stamp(self.clock.wall),
            locked_addresses_complete=True,
        )
        self.keys.apply(request, auth_pb2.SyncKeysResponse(**{**given, **answer}), start, mono)
        return self

    def fill(self, key=KEY, key_id="k", sent=None, **facts):
        given = dict(epoch="e", scopes=["traces:*"], secret_slot=key_pb2.SECRET_SLOT_CURRENT, revision=5)
        answer = auth_pb2.ValidateKeyResponse(
            decision=auth_pb2.DECISION_VALID,
            valid=True,
            key_id=key_id,
            owner_id="o",
            facts=auth_pb2.KeyFacts(**{**given, **facts}),
        )
        self.keys.keep(key, answer, self.keys._generation if sent is None else sent)
        return self

    def ask(self, scope="traces:read", ip="10.1.2.3", key=KEY):
        verdict = self.keys.decide(Question(key, scope, ip))
        return "ask" if verdict is None else verdict.decision.value

    def uses(self):
        return [
            (use.sequence, auth_pb2.Decision.Name(use.decision), use.required_scope, use.client_ip, use.count)
            for use in self.keys.request().uses
        ]


def primed(**facts):
    return Scene().sync().fill(**facts)


class LeaseTest(unittest.TestCase):
    def test_is_needed_and_ends_by_either_clock_and_by_one_that_is_set_back(self):
        self.assertEqual(Scene().fill().ask(), "ask")

        def back_after_all(clock):
            clock.advance(1)
            clock.wall -= 1

        for lapse in (
            lambda clock: setattr(clock, "mono", clock.mono + 1),
            lambda clock: setattr(clock, "wall", clock.wall + 1),
            lambda clock: setattr(clock, "wall", clock.wall - 0.001),
            back_after_all,
        ):
            scene = primed()
            self.assertEqual(scene.ask(), "VALID")
            lapse(scene.clock)
            self.assertEqual(scene.ask(), "ask")

    def test_runs_from_the_start_of_its_call(self):
        scene = Scene().sync(took=0.5).fill()
        scene.clock.advance(0.25)
        self.assertEqual(scene.ask(), "VALID")
        scene.clock.advance(0.25)
        self.assertEqual(scene.ask(), "ask")

    def test_is_none_where_clocks_are_five_seconds_apart(self):
        for off in (-5, 5):
            scene = Scene()
            for _ in range(2):
                scene.sync(server_time=stamp(scene.clock.wall + off))
            self.assertEqual(scene.fill().ask(), "ask")
            self.assertEqual(len(scene.warnings), 1)

    def test_that_ended_meanwhile_takes_the_decision_back(self):
        scene, looks = primed(), []

        def look():
            looks.append(None)
            if len(looks) == 2:
                scene.clock.wall += 1

        scene.clock.looked = look
        self.assertEqual(scene.ask(), "ask")
        self.assertEqual(scene.uses(), [])


class FactsTest(unittest.TestCase):
    def test_go_with_changes_resets_and_epochs(self):
        change = lambda key_id: [auth_pb2.SyncedChange(revision=6, key_id=key_id)]  # noqa: E731
        scene = primed()
        self.assertEqual(scene.sync(changes=change("another")).ask(), "VALID")
        self.assertEqual(scene.sync(changes=change("k")).ask(), "ask")
        self.assertEqual(scene.fill().sync(reset=True).ask(), "ask")
        self.assertEqual(scene.fill().sync(epoch="f", revision=2).ask(), "ask")
        self.assertEqual(scene.keys.request().revision, 2)
        self.assertEqual(scene.fill().ask(), "ask")

    def test_asked_for_before_a_sync_are_not_kept(self):
        scene = Scene().sync()
        _, sent = scene.keys.moment()
        self.assertEqual(scene.sync().fill(sent=sent).ask(), "ask")

    def test_are_asked_for_as_of_a_cursor_that_never_moves_back(self):
        scene = Scene().sync(revision=9).sync(revision=7)
        self.assertEqual(scene.keys.moment()[0], 9)

    def test_least_recently_used_make_room(self):
        scene = Scene().sync()
        for n in "213":
            scene.fill(key=KEY + n, key_id="k" + n)
        scene.ask(key=KEY + "2")
        scene.fill(key=KEY + "4", key_id="k4")
        self.assertEqual([scene.ask(key=KEY + n) for n in "1234"], ["ask", "VALID", "VALID", "VALID"])


class DecisionTest(unittest.TestCase):
    def test_follows_the_rules_of_the_server_in_their_order(self):
        scene = primed(ip_allowlist=["10.1.2.3/8", "2001:db8::7/32"])
        for scope, ip, expected in (
            ("traces:read", "10.9.9.9", "VALID"),
            ("traces:read", "::ffff:10.9.9.9", "VALID"),
            ("traces:read", "2001:db8::1", "VALID"),
            ("traces:read", "11.0.0.1", "IP_NOT_ALLOWED"),
            ("traces:read", "", "IP_NOT_ALLOWED"),
            ("metrics:read", "11.0.0.1", "IP_NOT_ALLOWED"),
            ("metrics:read", "10.9.9.9", "INSUFFICIENT_SCOPE"),
            (None, "10.9.9.9", "VALID"),
            ("traces:read", "::ffff:a09:909", "VALID"),
            ("traces:read", "no address", "ask"),
            ("traces:read", "fe80::1%eth0", "ask"),
            ("tra*", "10.9.9.9", "ask"),
        ):
            self.assertEqual(scene.ask(scope, ip), expected, (scope, ip))
        self.assertEqual(primed(scopes=["*"]).ask("apikeys:admin"), "INSUFFICIENT_SCOPE")
        self.assertEqual(primed(expired=True).ask(), "EXPIRED")

    def test_ends_with_the_key_and_with_the_grace_by_the_clock_of_the_server(self):
        for expected, field in (("EXPIRED", "expire_time"), ("ROTATED", "previous_secret_expire_time")):
            scene = Scene()
            scene.sync(server_time=stamp(scene.clock.wall + 2))
            scene.fill(secret_slot=key_pb2.SECRET_SLOT_PREVIOUS, **{
                "previous_secret_expire_time": stamp(scene.clock.wall + 9),
                field: stamp(scene.clock.wall + 2.5),
            })
            scene.clock.advance(0.25)
            self.assertEqual(scene.ask(), "VALID")
            scene.clock.advance(0.25)
            self.assertEqual(scene.ask(), expected)

    def test_about_an_address_that_may_be_locked_is_left_to_the_server(self):
        scene = primed().sync(locked_addresses=["10.1.2.3", "2001:db8:0:1::/64"])
        for ip, expected in (
            ("10.1.2.3", "ask"),
            ("::ffff:10.1.2.3", "ask"),
            ("2001:db8:0:1:ffff::7", "ask"),
            ("2001:db8:0:2::9", "VALID"),
            ("10.1.2.4", "VALID"),
            ("", "VALID"),
        ):
            self.assertEqual(scene.ask(ip=ip), expected, ip)
        scene.sync(locked_addresses_complete=False)
        self.assertEqual([scene.ask(ip="10.4.4.4"), scene.ask(ip="")], ["ask", "VALID"])


@unittest.skipUnless("APIKEYD_LOCAL_VECTORS" in os.environ, "test/clients/python.test.ts runs this")
class VectorsTest(unittest.TestCase):
    """The files of the form of clients/conformance/local.json that test/clients/python.test.ts names."""

    def test_are_decided_as_by_the_server(self):
        for path in os.environ["APIKEYD_LOCAL_VECTORS"].split(","):
            file = json.loads(Path(path).read_text(encoding="utf-8"))
            server_time = timestamp_pb2.Timestamp()
            server_time.FromJsonString(file["serverTime"])
            differing = [
                (key["name"], key["facts"], question, got)
                for key in file["keys"]
                for question in key["questions"]
                for got in [self.decision(server_time, key, question)]
                if got != question["decision"]
            ]
            self.assertEqual(differing, [])

    def decision(self, server_time, key, question):
        scene = Scene()
        scene.clock.wall = float(server_time.seconds)
        scene.sync(
            server_time=server_time,
            lease=duration_pb2.Duration(seconds=60),
            locked_addresses=key.get("lockedAddresses", []),
        )
        facts = json_format.ParseDict(key["facts"], auth_pb2.KeyFacts())
        answer = auth_pb2.ValidateKeyResponse(decision=auth_pb2.DECISION_VALID, valid=True, key_id="k", facts=facts)
        scene.keys.keep(KEY, answer, scene.keys._generation)
        scene.clock.advance(question.get("afterMs", 0) / 1_000)
        return scene.ask(question.get("scope"), question.get("clientIp", "")).replace("ask", "ASK")


class JournalTest(unittest.TestCase):
    def test_adds_up_and_sends_until_confirmed(self):
        scene = primed()
        for _ in range(3):
            scene.ask()
        scene.ask("metrics:read", "")
        first = scene.keys.request()
        scene.ask()
        last = (3, "DECISION_VALID", "traces:read", "10.1.2.3", 1)
        expected = [
            (1, "DECISION_VALID", "traces:read", "10.1.2.3", 3),
            (2, "DECISION_INSUFFICIENT_SCOPE", "metrics:read", "", 1),
            last,
        ]
        self.assertEqual(scene.uses(), expected)
        scene.keys.confirm(first.uses)
        self.assertEqual(scene.uses(), [last])
        self.assertTrue(scene.keys.request(closing=True).closing)
        self.assertEqual(scene.ask(), "ask")

    def test_splits_at_the_hour_and_is_bounded(self):
        scene = Scene()
        scene.clock.advance(3_600 - scene.clock.wall % 3_600 - 0.05)
        scene.sync().fill().ask()
        scene.clock.advance(0.1)
        scene.ask()
        self.assertEqual(len(scene.uses()), 2)
        for i in range(998):
            self.assertEqual(scene.ask(ip=f"10.0.{i // 250}.{i % 250}"), "VALID")
        self.assertEqual(scene.ask(ip="11.0.0.1"), "ask")
        self.assertEqual(scene.sync().ask(ip="11.0.0.1"), "VALID")


@unittest.skipUnless(hasattr(os, "fork"), "no fork here")
class ForkTest(unittest.TestCase):
    def test_a_forked_process_has_a_guard_of_its_own(self):
        begun = []
        state = LocalState(lambda: LocalKeys(3, print), lambda _state, keys: begun.append(keys))
        ours = state.keys().request().guard_id
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(writer, state.keys().request().guard_id.encode())
            os._exit(0)
        os.waitpid(child, 0)
        theirs = os.read(reader, 100).decode()
        for end in (reader, writer):
            os.close(end)
        self.assertEqual(len(theirs), 22)
        self.assertNotEqual(theirs, ours)
        self.assertEqual(state.keys().request().guard_id, ours)
        state.close()


if __name__ == "__main__":
    unittest.main()
