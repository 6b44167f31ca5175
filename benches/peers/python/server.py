"""python-socketio on uvicorn with the handlers of harness/bench_server.rs: `server.py PORT [WS]`.

uvloop and httptools; WS is uvicorn's WebSocket implementation, by default the fastest of them.
"""

import asyncio
import sys

import socketio
import uvicorn

sio = socketio.AsyncServer(
    async_mode="asgi",
    cors_allowed_origins="*",
    http_compression=False,
    logger=False,
    engineio_logger=False,
)


@sio.on("echo")
async def echo(sid, x):
    await sio.emit("echo", x, to=sid)


@sio.on("ack_echo")
async def ack_echo(sid, x):
    return x


@sio.on("broadcast")
async def broadcast(sid, x):
    await sio.emit("broadcast", x)


@sio.on("join")
async def join(sid, room):
    await sio.enter_room(sid, room)


@sio.on("room_msg")
async def room_msg(sid, room, x):
    await sio.emit("room_msg", x, to=room)


@sio.on("slow")
async def slow(sid, x):
    await asyncio.sleep(0.05)
    await sio.emit("slow", x, to=sid)


class Server(uvicorn.Server):
    async def startup(self, sockets=None):
        await super().startup(sockets)
        print("listening", flush=True)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: server.py PORT [WS]")
    config = uvicorn.Config(
        socketio.ASGIApp(sio),
        host="127.0.0.1",
        port=int(sys.argv[1]),
        loop="uvloop",
        http="httptools",
        ws=sys.argv[2] if len(sys.argv) > 2 else "websockets",
        ws_per_message_deflate=False,
        # Engine.IO has its own heartbeat.
        ws_ping_interval=None,
        ws_ping_timeout=None,
        access_log=False,
        log_level="warning",
        timeout_keep_alive=65,
        lifespan="off",
        backlog=2048,
    )
    Server(config).run()
