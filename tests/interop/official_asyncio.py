"""python-socketio's AsyncClient against a server: official_asyncio.py --server PATH [--transport TRANSPORT] [--scenario NAME]."""

import sys

import socketio

import common
import scenarios  # noqa: F401, registers them


class AsyncPeer(common.Peer):
    client_class = socketio.AsyncClient

    async def do(self, verb, *args, **options):
        return await getattr(self.client, verb)(*args, **options)

    def tap(self):
        send = self.client.eio._send_packet

        async def tapped(packet):
            if self.lets_pass(packet):
                await send(packet)
        self.client.eio._send_packet = tapped


if __name__ == "__main__":
    sys.exit(common.main(AsyncPeer))
