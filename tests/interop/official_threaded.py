"""python-socketio's threaded Client against a server: official_threaded.py --server PATH [--transport TRANSPORT] [--scenario NAME]."""

import asyncio
import concurrent.futures
import functools
import sys

import engineio
import socketio

import common
import scenarios  # noqa: F401, registers them

THREADS = concurrent.futures.ThreadPoolExecutor(max_workers=256)


class InOrder(engineio.Client):
    """The client starts a thread for each message that arrives, which leaves their order, and that of a packet and its
    attachments, to the scheduler. Here one thread takes them as they came; the rest of the client is untouched."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.dispatcher = concurrent.futures.ThreadPoolExecutor(max_workers=1)

    def _trigger_event(self, event, *args, run_async=False, **options):
        if run_async:
            return self.dispatcher.submit(self.handlers[event], *args)
        return super()._trigger_event(event, *args, **options)


class Client(socketio.Client):
    def _engineio_client_class(self):
        return InOrder


class ThreadedPeer(common.Peer):
    client_class = Client
    crowd = 80  # of three or four threads each; what a bigger one measures is Python

    async def do(self, verb, *args, **options):
        return await asyncio.get_running_loop().run_in_executor(THREADS, functools.partial(getattr(self.client, verb), *args, **options))

    def tap(self):
        send = self.client.eio._send_packet
        self.client.eio._send_packet = lambda packet: send(packet) if self.lets_pass(packet) else None


if __name__ == "__main__":
    sys.exit(common.main(ThreadedPeer))
