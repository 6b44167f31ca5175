// A socket of socket.io-client that is connected to a server, and upgraded if that was asked for. Anything that goes
// wrong later ends the program with 1.

import { io } from 'socket.io-client';

/** The bound of a whole script. Only a failure uses it up. */
const PATIENCE = 60_000;

export function fail(why) {
  console.error(why);
  process.exit(1);
}

export async function connected(url, transport, options = {}) {
  const transports = transport === 'upgrade' ? undefined : [transport];
  const socket = io(url, { transports, reconnection: false, forceNew: true, ...options });
  setTimeout(() => fail('waited in vain'), PATIENCE).unref();
  socket.on('connect_error', (error) => fail(`connect_error: ${error.message}`));
  socket.on('disconnect', (reason) => fail(`disconnect: ${reason}`));
  await new Promise((resolve) => socket.once('connect', resolve));
  if (transport === 'upgrade' && socket.io.engine.transport.name !== 'websocket') {
    await new Promise((resolve) => socket.io.engine.once('upgrade', resolve));
  }
  return socket;
}
