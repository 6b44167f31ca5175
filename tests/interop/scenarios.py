"""The scenarios of official.mjs, as far as python-socketio's clients can play them, under the same names. What asks nothing
of a client (`/health`, a raw POST) is left to official.mjs."""

import asyncio
import contextlib
import signal

import socketio

from common import PATIENCE, cases, check, duration, same, scenario, text, timestamp, within


@scenario()
async def connect(stage):
    alice = await stage.peer()
    same(alice.log, ["connect", "message"], "what came first")
    same(alice.welcome, {"data": "Welcome! You are connected to the server.", "server_time": duration, "client_id": alice.id, "total_clients": 1}, "welcome")
    bob = await stage.peer()
    same(bob.welcome["total_clients"], 2, "the second one's total_clients")
    same(await alice.next("client_notification"), {"type": "user_connected", "user_id": bob.id, "total_clients": 2, "timestamp": timestamp}, "notification")
    await bob.settle()
    bob.none("client_notification")


@scenario("--auth-token", "s3cret")
async def auth_accepted(stage):
    alice = await stage.peer(auth={"token": "s3cret"})
    same(await alice.call("echo", "in"), ["in"], "echo")


@scenario("--auth-token", "s3cret")
async def auth_refused(stage):
    alice = await stage.peer(auth={"token": "s3cret"})
    for auth in (None, {}, {"token": "wrong"}, {"token": ""}, {"token": "s3cret "}, {"token": ["s3cret"]}, {"token": None}):
        mallory = await refused(stage, auth=auth)
        same((await mallory.next("connect_error"))["message"], "Unauthorized", f"with {auth}")
        same(mallory.log, ["connect_error"], "all that the refused one got")
    bob = await stage.peer(auth={"token": "s3cret"})
    same(bob.welcome["total_clients"], 2, "total_clients without the refused")
    same((await alice.next("client_notification"))["user_id"], bob.id, "the only notification")
    await alice.settle()
    alice.none("client_notification")


@scenario()
async def messages(stage):
    alice, bob, carol = await stage.peers_named(3)
    for number, message in enumerate(cases["values"], 1):
        await alice.emit("message", message)
        same(await alice.next("message_received"), {"sender": alice.id, "message": message, "timestamp": timestamp, "message_id": f"{alice.id}_{number}"}, "message_received")
        for other in (bob, carol):
            same(await other.next("broadcast_message"), {"sender": alice.id, "message": message, "timestamp": timestamp, "total_clients": 3}, "broadcast_message")
    alice.none("broadcast_message")
    bob.none("message_received")


@scenario()
async def message_ids(stage):
    alice, bob = await stage.peers_named(2)
    for number in (1, 2):
        for peer in (alice, bob):
            await peer.call("message", f"number {number}")
            same((await peer.next("message_received"))["message_id"], f"{peer.id}_{number}", "message_id")
    await alice.call("message", None)
    await alice.next("error")
    await alice.call("custom_event", "not counted")
    await alice.call("message", "after a refused one")
    same((await alice.next("message_received"))["message_id"], f"{alice.id}_3", "message_id after a refused message")


@scenario()
async def custom_event(stage):
    alice, bob = await stage.peers_named(2)
    sized = cases["data_sizes"] + [[value, lambda size: isinstance(size, int) and size > 0] for value in cases["values"]]
    for value, size in sized:
        await alice.call("custom_event", value)
        same(await alice.next("custom_response"), {"status": "received", "original_data": value, "processed_by": "server", "client_id": alice.id, "timestamp": timestamp, "data_size": size}, "custom_response")
    await bob.settle()
    bob.none("custom_response", "broadcast_message")


@scenario()
async def echo(stage):
    alice = await stage.peer()
    await echoes(alice, cases["argument_lists"] + [[value] for value in cases["values"]])


@scenario()
async def event_acks(stage):
    alice = await stage.peer()
    lobby = {"room": "lobby"}
    for event, argument, answer in (
        ("message", "hi", "message_received"), ("custom_event", "hi", "custom_response"),
        ("join_room", lobby, "room_joined"), ("join_room", lobby, "room_joined"),
        ("room_message", {**lobby, "message": "hi"}, "room_broadcast"),
        ("leave_room", lobby, "room_left"), ("get_server_status", None, "server_status"),
        ("message", None, "error"), ("join_room", {}, "error"), ("room_message", {**lobby, "message": "hi"}, "error"),
    ):
        alice.log.clear()
        same(await alice.call(event, argument), [], f"ack of {event}")
        same(alice.log, [answer, f"ack of {event}"], "the answer, then the ack")
        await alice.next(answer)


@scenario()
async def unknown_event(stage):
    alice = await stage.peer()
    await alice.emit("no_such_event", {"a": 1})
    for event in ("no_such_event", "", "constructor", "__proto__", "toString", "message ", "connection"):
        await alice.request(event, "anything", b"\1")
    await alice.settle()
    same(alice.log, ["connect", "message", "ack of echo"], "all that came")


@scenario()
async def ask(stage):
    alice = await stage.peer()
    answers = [[], ["yes"], [1, "two", {"three": [3]}, None], *cases["binary_lists"]]
    alice.reply = lambda index, *rest: (*answers[index], index, *rest)
    for index, answer in enumerate(answers):
        await alice.emit("ask", index, "extra")
        same(await alice.take("answered"), [*answer, index, "extra"], "answered")
    await alice.emit("ask", 0, b"binary question")
    same(await alice.take("answered"), [0, b"binary question"], "answered")
    alice.reply = None
    await alice.emit("ask", 0)
    same(await alice.take("answered"), [], "answered with nothing")
    await alice.settle()
    alice.none("answered", "ask_timeout")


@scenario()
async def ask_timeout(stage):
    alice = await stage.peer()
    alice.muted.add("ack")
    asked = alice.loop.time()
    await alice.emit("ask", "anybody there?")
    same(await alice.take("question"), ["anybody there?"], "question")
    await alice.take("ask_timeout")
    waited = alice.loop.time() - asked
    check(1.9 < waited < 6, f"ask_timeout came after {waited} s, not about 2")
    alice.none("answered")


@scenario()
async def binary(stage):
    alice = await stage.peer()
    await echoes(alice, [*cases["binary_lists"], cases["empty_buffer_list"]])


@scenario()
async def binary_pipelined(stage):
    alice = await stage.peer()
    lists = [[i, bytes([i]) * i, {"again": bytes([i])}] for i in range(20)]
    for args in lists:
        await alice.emit("echo", *args)
    acks = [await alice.request("echo", *args) for args in lists]
    same(await within(asyncio.gather(*acks), "20 acks"), lists, "acks")
    for args in lists:
        same(await alice.take("echo_back"), args, "echo_back")


@scenario()
async def rooms(stage):
    alice, bob, carol = await stage.peers_named(3)
    room = "lobby"
    await alice.call("join_room", {"room": room, "extra": "ignored"})
    same(await alice.next("room_joined"), {"room": room, "status": "joined", "room_members": 1, "timestamp": timestamp}, "room_joined")
    await bob.call("join_room", {"room": "  lobby "})
    same(await bob.next("room_joined"), {"room": room, "status": "joined", "room_members": 2, "timestamp": timestamp}, "room_joined")
    same(await alice.next("user_joined_room"), {"user_id": bob.id, "room": room, "room_members": 2, "timestamp": timestamp}, "user_joined_room")
    await bob.call("join_room", {"room": room})
    same(await bob.next("room_joined"), {"room": room, "status": "already_in_room"}, "repeated join")
    bob.none("user_joined_room")

    for message in cases["room_values"]:
        await alice.call("room_message", {"room": room, "message": message})
        for member in (alice, bob):
            same(await member.next("room_broadcast"), {"sender": alice.id, "room": room, "message": message, "timestamp": timestamp, "room_members": 2}, "room_broadcast")

    await bob.call("leave_room", {"room": room})
    same(await bob.next("room_left"), {"room": room, "status": "left", "remaining_members": 1, "timestamp": timestamp}, "room_left")
    same(await alice.next("user_left_room"), left_room(bob.id, room, 1), "user_left_room")
    await bob.call("leave_room", {"room": room})
    same(await bob.next("room_left"), {"room": room, "status": "not_in_room"}, "repeated leave")
    await bob.call("room_message", {"room": room, "message": "from outside"})
    same((await bob.next("error"))["message"], "You are not in room 'lobby'. Join the room first.", "message from outside")
    await alice.call("room_message", {"room": room, "message": "to myself"})
    same((await alice.next("room_broadcast"))["room_members"], 1, "room_members after the leave")
    await alice.call("leave_room", {"room": room})
    same((await alice.next("room_left"))["remaining_members"], 0, "remaining_members of an empty room")

    for peer in (alice, bob, carol):
        await peer.settle()
        peer.none("room_broadcast", "user_left_room", "user_joined_room", "broadcast_message")
    check(not any("room" in event for event in carol.log), f"the outsider got {carol.log}")


@scenario()
async def room_disconnect(stage):
    alice, bob = await stage.peers_named(2)
    for room in ("one", "two"):
        await alice.call("join_room", {"room": room})
        await bob.call("join_room", {"room": room})
    user_id = bob.id
    await leave(bob)
    left = [await alice.next("user_left_room") for _ in range(2)]
    for payload, room in zip(sorted(left, key=lambda payload: payload["room"]), ("one", "two")):
        same(payload, left_room(user_id, room, 1), "user_left_room")
    await alice.call("room_message", {"room": "one", "message": "alone"})
    same((await alice.next("room_broadcast"))["room_members"], 1, "room_members after the disconnect")


@scenario()
async def private_address(stage):
    alice, mallory = await stage.peers_named(2)
    await mallory.call("join_room", {"room": alice.id})
    same((await mallory.next("room_joined"))["room_members"], 1, "members of the room called after a sid")
    for event in ("message", "custom_event", "echo", "get_server_status", "join_room"):
        await alice.emit(event, "for alice only")
    await alice.next("error")
    await alice.settle()
    await mallory.call("room_message", {"room": alice.id, "message": "from mallory"})
    await mallory.next("room_broadcast")
    await mallory.settle()
    mallory.none("message_received", "custom_response", "echo_back", "server_status", "error")
    await alice.settle()
    alice.none("room_broadcast", "user_joined_room")


@scenario()
async def broadcast_order(stage):
    alice, *others = await stage.peers_named(4)
    for number in range(100):
        await alice.emit("message", number)
    for other in others:
        for number in range(100):
            same((await other.next("broadcast_message"))["message"], number, "broadcast_message in order")
    for number in range(1, 101):
        same((await alice.next("message_received"))["message_id"], f"{alice.id}_{number}", "message_received in order")
    for peer in (alice, *others):
        await peer.settle()
        peer.none("broadcast_message", "message_received")


@scenario()
async def namespaces(stage):
    auth = {"token": "abc", "nested": [1, {"deep": "ü"}]}
    alice = await stage.peer(auth=auth, namespaces=("/", "/custom"))
    same(await alice.next("/custom auth"), auth, "auth of /custom")
    same([event for event in alice.log if event.startswith("/custom")], ["/custom connect", "/custom auth"], "what came on /custom")
    check(alice.client.get_sid("/custom") != alice.id, "the namespaces share a sid")
    same(await alice.call("echo", "on /"), ["on /"], "echo")


@scenario()
async def unknown_namespace(stage):
    control = await stage.peer()
    alice = await refused(stage, namespaces=("/", "/nope"))
    same((await alice.next("/nope connect_error"))["message"], "Invalid namespace", "refusal")
    same(await control.call("echo", "still on /"), ["still on /"], "echo")
    alice.inbox.clear()  # this client leaves `/` too when one of its namespaces is refused


@scenario()
async def client_disconnect(stage):
    alice, bob, carol = await stage.peers_named(3)
    user_id = bob.id
    await leave(bob)
    for other in (alice, carol):
        await departure(other, user_id, 2)
    await alice.call("get_server_status")
    same((await alice.next("server_status"))["total_clients"], 2, "total_clients after")
    dave = await stage.peer()
    same(dave.welcome["total_clients"], 3, "total_clients after the next one came")


@scenario()
async def server_disconnect(stage):
    alice = await stage.peer()
    bob = await stage.peer(reconnection=True)
    user_id = bob.id
    await bob.emit("kick")
    same(await bob.next("disconnect"), bob.client.reason.SERVER_DISCONNECT, "reason")
    await bob.ended()
    same(bob.log.count("connect"), 1, "connections of the kicked client")
    await departure(alice, user_id, 1)


@scenario()
async def nothing_lost(stage):
    """Only what the server sends: this client closes its WebSocket before its own queue is empty."""
    alice, bob = await stage.peers_named(2)
    user_id = bob.id
    for number in range(50):
        await bob.emit("echo", number)
    await bob.emit("kick")
    for number in range(50):
        same(await bob.next("echo_back"), number, "answered before the server hung up")
    same(await bob.next("disconnect"), bob.client.reason.SERVER_DISCONNECT, "reason")
    await departure(alice, user_id, 1)


@scenario()
async def reconnect_after_restart(stage):
    alice = await stage.peer(reconnection=True)
    await alice.call("join_room", {"room": "lobby"})
    before = alice.id
    await stage.server.stop(signal.SIGKILL)
    same(await alice.next("disconnect"), alice.client.reason.TRANSPORT_ERROR, "reason")
    await stage.start(stage.server.port)

    await alice.take("connect")
    check(alice.id != before, "the sid survived a new server")
    welcome = await alice.next("message")
    same([welcome["client_id"], welcome["total_clients"]], [alice.id, 1], "new welcome")
    same(await alice.call("echo", "back"), ["back"], "echo")
    await alice.call("get_server_status")
    same((await alice.next("server_status"))["client_rooms"], [], "rooms of the new session")
    # Attempts while nobody listened are what brought the client back.
    alice.inbox = [entry for entry in alice.inbox if entry[0] != "connect_error"]


@scenario()
async def graceful_shutdown(stage):
    for number in (signal.SIGTERM, signal.SIGINT):
        peers = await stage.peers_named(3)
        _, idler = await asyncio.open_connection("127.0.0.1", stage.server.port)
        idler.write(b"GET /health HTTP/1.1\r\nHost: ")
        await within(idler.drain(), "half a request to be written")

        ended = asyncio.create_task(stage.server.stop(number))
        for peer in peers:
            same(await peer.next("server_notification"), {"type": "server_shutdown", "message": "Server is shutting down", "timestamp": timestamp}, "server_notification")
            await peer.take("disconnect")
        same(await ended, 0, f"exit code after {number}")
        idler.close()
        await stage.start()


@scenario("--max-payload", "20000", "--ping-interval", "1s", "--ping-timeout", "5s")
async def max_payload(stage):
    alice = await stage.peer()
    bob = await stage.peer(reconnection=True)
    # The event as it travels is `421["echo","…"]`; the limit counts its bytes. A pong may share the POST.
    filling = lambda size: "x" * (size - len('421["echo",""]'))
    under = filling(19_997)
    same(await bob.call("echo", under), [under], "echo just under the limit")

    user_id = bob.id
    await bob.emit("echo", filling(20_010))
    same(await bob.next("disconnect"), bob.client.reason.TRANSPORT_ERROR, "reason")
    await bob.take("connect")
    same(await bob.call("echo", "back"), ["back"], "echo")
    bob.none("echo_back")
    await departure(alice, user_id, lambda total: total in (1, 2))  # 2: the client is back already
    same(await alice.call("echo", "control"), ["control"], "echo")


@scenario("--ping-interval", "1s", "--ping-timeout", "1s")
async def heartbeat(stage):
    alice, bob = await stage.peers_named(2)
    bob.muted.add("pong")
    await departure(alice, bob.id, 1)
    await bob.take("disconnect")

    async def thrice():
        while alice.sent["pong"] < 3:
            await asyncio.sleep(0.05)
    await within(thrice(), lambda: f"three pings; there were {alice.sent['pong']}")
    same(await alice.call("echo", "alive"), ["alive"], "echo")


@scenario("--rate-limit", "1", "--rate-burst", "10")
async def rate_limit(stage):
    alice, bob = await stage.peers_named(2)
    user_id = bob.id
    for number in range(12):
        await bob.emit("message", number)
    same(await bob.next("error"), {"error": True, "message": "Rate limit exceeded", "timestamp": timestamp, "client_id": user_id}, "error")
    with contextlib.suppress(socketio.exceptions.BadNamespaceError):  # already thrown out
        for number in range(1000):
            await bob.emit("message", number)
    await bob.take("disconnect")
    await departure(alice, user_id, 1)
    passed = alice.log.count("broadcast_message")
    check(10 <= passed < 30, f"{passed} messages passed a burst of 10 at 1 a second")
    same(await alice.call("echo", "control"), ["control"], "echo")
    # The server leaves the namespace and closes the connection; the threaded client may report each. And thrown out amid its own
    # POSTs it now and then forgets to close on polling, and stays until the server goes: its affair.
    if stage.transport == "polling":
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(bob.do("wait"), 5)
    else:
        await bob.ended()
    bob.inbox = [entry for entry in bob.inbox if entry[0] not in ("error", "disconnect")]


@scenario("--rate-limit", "0")
async def errors(stage):
    alice, bob = await stage.peers_named(2)
    for row in cases["errors"]:
        what = f"{row['event']} {str(row['args'])[:60]}"
        original = {"original_data": text} if row.get("original_data") else {}
        same(await alice.call(row["event"], *row["args"]), [], f"ack of {what}")
        error = await alice.next("error")
        same(error, {"error": True, "message": row["message"], "timestamp": timestamp, "client_id": alice.id, **original}, what)
        check(len(error.get("original_data", "")) <= 500, f"original_data of {what} is too long")
    for row in cases["accepted"]:
        same(await alice.call(row["event"], *row["args"]), [], f"ack of {row['event']}")
        await alice.take(row["answer"])
    await bob.settle()
    bob.none("error")


@scenario()
async def server_status(stage):
    alice, bob = await stage.peers_named(2)

    async def status(peer):
        await peer.call("get_server_status")
        return await peer.next("server_status")

    same(await status(alice), {"total_clients": 2, "server_uptime": duration, "client_rooms": [], "client_messages": 0, "timestamp": timestamp}, "fresh")
    for room in ("lobby", "attic", "cellar"):
        await alice.call("join_room", {"room": room})
    await alice.call("leave_room", {"room": "attic"})
    await alice.call("message", "counted")
    await alice.call("message", "counted")
    await alice.call("room_message", {"room": "lobby", "message": "not counted"})
    await alice.call("custom_event", "not counted")
    await alice.call("message", None)
    await alice.next("error")
    later = await status(alice)
    same([sorted(later["client_rooms"]), later["client_messages"]], [["cellar", "lobby"], 2], "rooms and messages")
    same((await status(bob))["client_messages"], 0, "the other one's messages")


@scenario(alone=True)
async def crowd(stage):
    size = stage.peer_class.crowd
    crowd = await stage.peers_named(size)
    check(len({peer.id for peer in crowd}) == size, "sids repeat")
    answers = await asyncio.gather(*(peer.call("echo", index, peer.id) for index, peer in enumerate(crowd)))
    same(answers, [[index, peer.id] for index, peer in enumerate(crowd)], "echo of each")
    await asyncio.gather(*(peer.call("join_room", {"room": "crowd"}) for peer in crowd))
    await crowd[0].call("room_message", {"room": "crowd", "message": "to all"})
    for peer in crowd:
        same(await peer.next("room_broadcast"), {"sender": crowd[0].id, "room": "crowd", "message": "to all", "timestamp": timestamp, "room_members": size}, "room_broadcast")


async def echoes(peer, argument_lists):
    for args in argument_lists:
        same(await peer.call("echo", *args), args, "ack")
        await peer.emit("echo", *args)
        same(await peer.take("echo_back"), args, "echo_back")


async def refused(stage, **options):
    """A peer whose connect was refused; the reason is in its inbox."""
    peer = stage.opening()
    try:
        await peer.connect(stage.server.url, stage.transport, **options)
    except socketio.exceptions.ConnectionError:
        return peer
    check(False, f"connected with {options}")


async def leave(peer):
    await peer.disconnect()
    same(await peer.next("disconnect"), peer.client.reason.CLIENT_DISCONNECT, "reason")


async def departure(witness, user_id, total_clients):
    async def first():
        while True:
            notification = await witness.next("client_notification")
            if notification["type"] != "user_connected":
                return notification
    same(await first(), {"type": "user_disconnected", "user_id": user_id, "total_clients": total_clients, "timestamp": timestamp}, "client_notification")


def left_room(user_id, room, remaining):
    return {"user_id": user_id, "room": room, "type": "user_left_room", "remaining_members": remaining, "timestamp": timestamp}
