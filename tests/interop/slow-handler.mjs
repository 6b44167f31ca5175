// socket.io-client while the server's handler runs for longer than the heartbeat allows silence:
//   node slow-handler.mjs URL polling|websocket|upgrade MILLISECONDS
// Ends with 0 when the acknowledgement came and the session is the same as before.

import { connected, fail } from './connected.mjs';

const [url, transport, time] = process.argv.slice(2);
const socket = await connected(url, transport);
const { id } = socket;
const answer = await socket.emitWithAck('sleep', Number(time));
const echo = await socket.emitWithAck('echo', 'still here');
if (answer !== Number(time) || echo !== 'still here' || socket.id !== id) fail(`${answer}, ${echo}, ${id}, ${socket.id}`);
process.exit(0);
