"""python-socketio while the server's handler runs for longer than the heartbeat allows silence:
slow_handler.py URL polling|websocket|upgrade MILLISECONDS. Ends with 0 when the acknowledgement came, on both kinds of
client, and the session is the same as before."""

import asyncio
import sys

import socketio

url, transport, time = sys.argv[1], sys.argv[2], int(sys.argv[3])
transports = ["polling", "websocket"] if transport == "upgrade" else [transport]


def same(answers, before, after):
    if answers != [time, "still here"] or before != after:
        sys.exit(f"{answers}, {before}, {after}")


def threaded():
    client = socketio.Client(reconnection=False)
    client.connect(url, transports=transports)
    before = client.get_sid()
    answers = [client.call("sleep", time, timeout=30), client.call("echo", "still here", timeout=30)]
    same(answers, before, client.get_sid())
    client.disconnect()


async def asynchronous():
    client = socketio.AsyncClient(reconnection=False)
    await client.connect(url, transports=transports)
    before = client.get_sid()
    answers = [await client.call("sleep", time, timeout=30), await client.call("echo", "still here", timeout=30)]
    same(answers, before, client.get_sid())
    await client.disconnect()


threaded()
asyncio.run(asynchronous())
