"""What the scenarios of the two Python clients stand on: a server process, a client with an inbox, bounded waits, the
runner. Scenarios are coroutines; what differs between the asyncio and the threaded client is in the two scripts."""

import argparse
import asyncio
import collections
import contextlib
import json
import numbers
import pathlib
import re
import signal
import sys
import time
import traceback

import engineio
import socketio
from engineio.packet import MESSAGE, PONG

HERE = pathlib.Path(__file__).parent
PATIENCE = 20
"""Bound of every wait, in seconds. It is only used up by a failure, so it is generous to a busy machine."""
CONCURRENCY = 4
"""Scenarios under way at once. Each has a server of its own, so they cannot see each other."""
TRANSPORTS = {"polling": ["polling"], "websocket": ["websocket"], "upgrade": None}


class Failure(Exception):
    pass


def check(condition, what):
    if not condition:
        raise Failure(what)


async def within(awaitable, what, bound=PATIENCE):
    """The awaitable's result, or a failure after the bound that says what it waited for."""
    try:
        return await asyncio.wait_for(awaitable, bound)
    except asyncio.TimeoutError:
        raise Failure(f"waited {bound} s for {what() if callable(what) else what}") from None


def same(actual, expected, what):
    """Equal in values, and a dict also in the order of its keys. A function in `expected` is a predicate."""
    if isinstance(actual, dict) and isinstance(expected, dict):
        holds = lambda key, value: callable(value) and key in actual and value(actual[key])
        expected = {key: actual[key] if holds(key, value) else value for key, value in expected.items()}
        ordered = list(actual) == list(expected)
    else:
        ordered = True
    check(ordered and canonical(actual) == canonical(expected), f"{what}: got {show(actual)}, expected {show(expected)}")


def canonical(value):
    """As JSON text, because True == 1 in Python."""
    return json.dumps(value, sort_keys=True, default=lambda part: {"$binary": part.hex()} if isinstance(part, bytes) else "<predicate>")


def show(value):
    return canonical(value)[:300]


def timestamp(value):
    return isinstance(value, numbers.Real) and abs(value - time.time()) < 60


def duration(value):
    return isinstance(value, numbers.Real) and value >= 0


def text(value):
    return isinstance(value, str) and value != ""


def expand(value):
    if "$repeat" in value:
        return value["$repeat"][0] * value["$repeat"][1]
    if "$binary" in value:
        return bytes.fromhex(value["$binary"])
    if "$ramp" in value:
        return bytes(i % 256 for i in range(value["$ramp"]))
    return value


cases = json.loads((HERE / "cases.json").read_text("utf-8"), object_hook=expand)


class Server:
    """One process of the server under test, on a free port unless told."""

    @classmethod
    async def start(cls, command, flags, port=0):
        self = cls()
        self.log = ""
        # The threaded client now and then loses its own CLOSE on polling, and leaves with the next ping: soon, so.
        ping = [] if "--ping-interval" in flags else ["--ping-interval", "3s", "--ping-timeout", "20s"]
        arguments = ["--host", "127.0.0.1", "--port", str(port), "--test-events", *ping, *flags]
        self.process = await asyncio.create_subprocess_exec(
            command, *arguments, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE)
        listening = asyncio.get_running_loop().create_future()
        self.readers = [asyncio.create_task(self._read(stream, listening)) for stream in (self.process.stdout, self.process.stderr)]
        try:
            self.url = await within(listening, lambda: f"the server's first line; it printed: {self.log}")
        except BaseException:
            await self.stop(signal.SIGKILL)
            raise
        self.port = int(self.url.rpartition(":")[2])
        return self

    async def _read(self, stream, listening):
        while chunk := await stream.read(65536):
            self.log = (self.log + chunk.decode("utf-8", "replace"))[-100_000:]
            found = re.search(r"Starting Socket\.IO server on (http://127\.0\.0\.1:\d+)\s", self.log)
            if found and not listening.done():
                listening.set_result(found[1])
        if not listening.done():
            listening.set_exception(Failure(f"the server ended before it listened; it printed: {self.log[-300:]}"))

    async def stop(self, number, bound=5):
        """Sends the signal and returns the exit code; a negative one is the signal that ended the process."""
        if self.alive:
            self.process.send_signal(number)
        return await within(self.process.wait(), f"the server to end after signal {number}", bound)

    @property
    def alive(self):
        return self.process.returncode is None


class Peer:
    """A connection of the official client. All that arrives, `connect` and `disconnect` too, waits in the inbox to be
    taken; what comes on another namespace than `/` is called "/custom auth" there."""

    crowd = 200
    """How many of these clients make a crowd."""

    def __init__(self, reconnection):
        self.loop = asyncio.get_running_loop()
        self.inbox = []
        self.log = []  # names only, in order of arrival, never taken from
        self.wake = asyncio.Event()
        self.reply = None  # what a `question` is answered with, a function of its arguments
        self.muted = set()  # kinds of packets that this peer keeps to itself: "ack", "pong"
        self.sent = collections.Counter()
        self.client = self.client_class(
            reconnection=reconnection, reconnection_delay=0.05, reconnection_delay_max=0.2, randomization_factor=0,
            request_timeout=PATIENCE, handle_sigint=False)
        self.tap()

    def listen(self, namespaces):
        for namespace in namespaces:
            prefix = "" if namespace == "/" else namespace + " "
            for event in ("connect", "disconnect", "connect_error"):
                self.client.on(event, lambda *args, name=prefix + event: self.arrived(name, args), namespace=namespace)
            self.client.on("*", lambda event, *args, prefix=prefix: self.arrived(prefix + event, args), namespace=namespace)

    def arrived(self, event, args):
        self.loop.call_soon_threadsafe(self._note, event, args)
        return self.reply(*args) if event == "question" and self.reply else None

    def _note(self, event, args):
        self.log.append(event)
        self.inbox.append((event, list(args)))
        self.wake.set()

    def lets_pass(self, packet):
        """Asked for each Engine.IO packet before the client sends it."""
        acks = packet.packet_type == MESSAGE and isinstance(packet.data, str) and packet.data.startswith("3")
        kind = "pong" if packet.packet_type == PONG else "ack" if acks else "other"
        self.sent[kind] += 1
        return kind not in self.muted

    async def connect(self, url, transport, auth=None, namespaces=("/",)):
        self.listen(namespaces)
        connecting = self.do("connect", url, auth=auth, transports=TRANSPORTS[transport], namespaces=list(namespaces), wait_timeout=PATIENCE)
        await within(connecting, "the connection", 2 * PATIENCE)

    @property
    def id(self):
        return self.client.get_sid()

    @property
    def connected(self):
        return self.client.connected

    async def take(self, event):
        """Takes the oldest `event` out of the inbox, waiting for it if need be, and returns its arguments."""
        async def arrival():
            while True:
                for index, (name, args) in enumerate(self.inbox):
                    if name == event:
                        del self.inbox[index]
                        return args
                self.wake.clear()
                await self.wake.wait()
        return await within(arrival(), lambda: f"'{event}'; in the inbox: {show([name for name, _ in self.inbox])}")

    async def next(self, event):
        """The first argument of the next `event`."""
        return (await self.take(event))[0]

    def none(self, *events):
        for name, args in self.inbox:
            check(name not in events, f"unexpected '{name}' {show(args)}")

    async def emit(self, event, *args):
        await self.do("emit", event, args)

    async def request(self, event, *args):
        """Emits with an ack and returns a future of the ack's arguments."""
        answer = self.loop.create_future()

        def settle(values):
            self.log.append(f"ack of {event}")
            if not answer.done():
                answer.set_result(list(values))

        await self.do("emit", event, args, callback=lambda *values: self.loop.call_soon_threadsafe(settle, values))
        return answer

    async def call(self, event, *args):
        """Emits with an ack and waits for the ack's arguments."""
        return await within(await self.request(event, *args), f"the ack of '{event}'")

    async def settle(self):
        """A round trip: what the server had queued for this peer before is in the inbox after."""
        await self.call("echo", "settle")

    async def disconnect(self):
        await within(self.do("disconnect"), "the client to disconnect")

    async def ended(self):
        """Returns once the client is neither connected nor about to reconnect."""
        await within(self.do("wait"), "the client to give up")


class Stage:
    """What a scenario gets: a server, and peers on one transport."""

    def __init__(self, transport, command, flags, peer_class):
        self.transport, self.command, self.flags, self.peer_class = transport, command, flags, peer_class
        self.peers, self.server = [], None

    async def start(self, port=0):
        self.server = await Server.start(self.command, self.flags, port)

    def opening(self, reconnection=False):
        """A peer that has yet to connect. No reconnecting unless asked for, lest it hide a loss."""
        peer = self.peer_class(reconnection)
        self.peers.append(peer)
        return peer

    async def peer(self, reconnection=False, **options):
        """A connected peer, its welcome taken and kept in `welcome`."""
        peer = self.opening(reconnection)
        await peer.connect(self.server.url, self.transport, **options)
        await peer.take("connect")
        peer.welcome = await peer.next("message")
        return peer

    async def peers_named(self, count):
        return await asyncio.gather(*(self.peer() for _ in range(count)))

    async def finish(self):
        """What every scenario promises: nobody lost a connection or got an error unnoticed, the transport was the transport, the
        server lives and ends well."""
        for peer in self.peers:
            peer.none("disconnect", "error", "connect_error")
            if peer.connected:
                wanted = "polling" if self.transport == "polling" else "websocket"
                check(peer.client.transport() == wanted, f"transport is {peer.client.transport()}")
        # Now and then the threaded client loses its own CLOSE on polling, and stays until the server goes: its affair.
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self.close(), 5)
        check(self.server.alive, f"the server ended by itself: {self.server.log[-300:]}")
        status = await self.server.stop(signal.SIGTERM)
        check(status == 0, f"the server ended with {status} after SIGTERM")

    async def close(self):
        await asyncio.gather(*(peer.do("shutdown") for peer in self.peers), return_exceptions=True)


Scenario = collections.namedtuple("Scenario", "name run flags alone")
scenarios = []


def scenario(*flags, alone=False):
    """Registers a coroutine as a scenario; `flags` are for its server, `alone` is with nothing beside it."""
    def register(run):
        scenarios.append(Scenario(run.__name__, run, flags, alone))
        return run
    return register


async def perform(entry, transport, command, peer_class):
    stage = Stage(transport, command, entry.flags, peer_class)
    try:
        await stage.start()
        await entry.run(stage)
        await stage.finish()
        panic = re.search(r"panicked at.*\n?.*", stage.server.log)
        check(not panic, f"a thread panicked: {panic and panic[0]}")
        print(f"ok {transport} {entry.name}", flush=True)
        return True
    except Exception as error:
        reason = str(error) if isinstance(error, Failure) else "".join(traceback.format_exception(error))
        reason = re.sub(r"\s*\n\s*", " | ", reason)
        print(f"FAIL {transport} {entry.name}: {reason}", flush=True)
        return False
    finally:
        if stage.server and stage.server.alive:
            await stage.server.stop(signal.SIGKILL)
        await stage.close()


async def run_all(options, peer_class):
    command = str(HERE / "reference-server.mjs") if options.reference else options.server
    transports = [transport for transport in TRANSPORTS if options.transport in ("all", transport)]
    chosen = [entry for entry in scenarios if options.scenario in (None, entry.name)]
    verdicts = []

    async def work(queue):
        while queue:
            entry, transport = queue.pop(0)
            verdicts.append(await perform(entry, transport, command, peer_class))

    jobs = lambda alone: [(entry, transport) for entry in chosen for transport in transports if entry.alone == alone]
    beside = jobs(False)
    await asyncio.gather(*(work(beside) for _ in range(CONCURRENCY)))
    await work(jobs(True))
    return verdicts


def main(peer_class):
    parser = argparse.ArgumentParser()
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--server", metavar="PATH", help="the server program to test")
    which.add_argument("--reference", action="store_true", help="test the official Node server instead")
    parser.add_argument("--transport", choices=[*TRANSPORTS, "all"], default="all")
    parser.add_argument("--scenario", choices=[entry.name for entry in scenarios])
    options = parser.parse_args()
    if options.reference:
        # This client refuses a poll of more than 16 packets. The Node server does not care, tinysio does.
        engineio.payload.Payload.max_decode_packets = 1000
    verdicts = asyncio.run(run_all(options, peer_class))
    failed = verdicts.count(False)
    print(f"{len(verdicts) - failed} passed, {failed} failed", flush=True)
    return 1 if failed or not verdicts else 0
