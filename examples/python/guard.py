"""A backend that admits requests whose key is valid for the scope traces:read."""

import json
import os
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIServer, make_server

import apikeyd


class Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


def traces(environ, start_response):
    start_response("200 OK", [("content-type", "application/json")])
    return [json.dumps({"traces": [], "key": environ["apikeyd.verdict"].key_id}).encode()]


if __name__ == "__main__":
    address = os.environ.get("APIKEYD_ADDRESS", "127.0.0.1:50051")
    with apikeyd.Guard(address, key_file=os.environ["APIKEYD_KEY_FILE"]) as guard:
        app = apikeyd.WSGIGuard(traces, guard, apikeyd.Rule("traces:read"))
        server = make_server("127.0.0.1", int(os.environ.get("PORT", "8000")), app, Server)
        print(f"listening on {server.server_port}", flush=True)
        server.serve_forever()
