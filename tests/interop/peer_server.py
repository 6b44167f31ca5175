"""python-socketio's threaded server, as a peer for the tests of the client (tests/client).

Prints `PORT n` when it listens. Options as in peer-server.mjs, those that python-socketio has.
"""

import argparse
import logging

import socketio
from werkzeug.serving import make_server

parser = argparse.ArgumentParser()
parser.add_argument("--port", type=int, default=0)
parser.add_argument("--transports", default="polling,websocket")
parser.add_argument("--ping-interval", type=int, default=25_000)
parser.add_argument("--ping-timeout", type=int, default=20_000)
parser.add_argument("--max-payload", type=int, default=1_000_000)
parser.add_argument("--no-upgrade", action="store_true")
args = parser.parse_args()

logging.getLogger("werkzeug").setLevel(logging.ERROR)
sio = socketio.Server(
    async_mode="threading",
    transports=args.transports.split(","),
    ping_interval=args.ping_interval / 1000,
    ping_timeout=args.ping_timeout / 1000,
    max_http_buffer_size=args.max_payload,
    allow_upgrades=not args.no_upgrade,
)
state = {"connects": 0, "counted": 0}


class Peer(socketio.Namespace):
    def on_connect(self, sid, environ, auth=None):
        if self.namespace == "/private" and (auth or {}).get("token") != "good":
            raise socketio.exceptions.ConnectionRefusedError("not allowed", {"code": 7})
        state["connects"] += 1
        self.save_session(sid, {"auth": auth, "environ": environ, "tries": 0})
        self.emit("welcome", {"transport": sio.transport(sid, self.namespace), "connects": state["connects"]}, to=sid)

    def on_echo(self, sid, *data):
        return data

    def on_shout(self, sid, *data):
        self.emit("shouted", data, to=sid)

    def on_ask(self, sid, *data):
        def answer():
            try:
                got = self.call("question", data, to=sid, timeout=20)
                self.emit("answered", got, to=sid)
            except socketio.exceptions.TimeoutError:
                self.emit("ask_timeout", to=sid)

        sio.start_background_task(answer)

    def on_auth(self, sid):
        return self.get_session(sid)["auth"]

    def on_transport(self, sid):
        return sio.transport(sid, self.namespace)

    def on_flood(self, sid, n):
        for i in range(n):
            self.emit("n", i, to=sid)

    def on_count(self, sid, *data):
        state["counted"] += 1

    def on_counted(self, sid):
        return state["counted"]

    def on_silent(self, sid):
        # Without a handler, or when it returns, python-socketio acknowledges.
        sio.sleep(3600)

    def on_flaky(self, sid, value):
        with self.session(sid) as session:
            session["tries"] += 1
            return value, session["tries"]

    def on_kick(self, sid):
        self.disconnect(sid)

    on_kick_hard = on_kick

    def on_drop(self, sid):
        sio.eio.disconnect(sio.manager.eio_sid_from_sid(sid, self.namespace))


for namespace in ["/", "/chat", "/private"]:
    sio.register_namespace(Peer(namespace))

server = make_server("127.0.0.1", args.port, socketio.WSGIApp(sio), threaded=True)
print(f"PORT {server.port}", flush=True)
server.serve_forever()
