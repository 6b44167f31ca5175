// socket.io-client while the server's handler runs for longer than the heartbeat allows silence:
//   node slow-handler.mjs URL polling|websocket|upgrade MILLISECONDS
// Ends with 0 when the acknowledgement came and the session is the same as before.

import { io } from 'socket.io-client';

const [url, transport, time] = process.argv.slice(2);
const socket = io(url, { transports: transport === 'upgrade' ? undefined : [transport], reconnection: false, forceNew: true });

const fail = (why) => {
  console.error(why);
  process.exit(1);
};
setTimeout(() => fail('waited in vain'), 30_000);
socket.on('connect_error', (error) => fail(`connect_error: ${error.message}`));
socket.on('disconnect', (reason) => fail(`disconnect: ${reason}`));

await new Promise((resolve) => socket.once('connect', resolve));
if (transport === 'upgrade' && socket.io.engine.transport.name !== 'websocket') {
  await new Promise((resolve) => socket.io.engine.once('upgrade', resolve));
}
const { id } = socket;
const answer = await socket.emitWithAck('sleep', Number(time));
const echo = await socket.emitWithAck('echo', 'still here');
if (answer !== Number(time) || echo !== 'still here' || socket.id !== id) fail(`${answer}, ${echo}, ${id}, ${socket.id}`);
process.exit(0);
