"""A guard that decides by itself: questions come as lines of JSON, answers go back likewise. A line with `clockMs` sets the
wall clock of the guard, so much ahead of the machine's."""

import json
import sys
import time

import apikeyd
from apikeyd._local import Clock

with apikeyd.Guard(sys.argv[1], key_file=sys.argv[2], local=True, deadline=1.0) as guard:
    for line in sys.stdin:
        asked = json.loads(line)
        if "clockMs" in asked:
            Clock.now = staticmethod(lambda ahead=asked["clockMs"] / 1_000: time.time() + ahead)
            print("{}", flush=True)
            continue
        question = apikeyd.Question(asked["key"], asked["scope"], "10.1.2.3")
        try:
            verdict = guard.validate(question)
            answer = {"outcome": verdict.decision.value, "local": verdict.local}
        except apikeyd.NoDecision:
            answer = {"outcome": "UNAVAILABLE", "local": False}
        print(json.dumps(answer), flush=True)
