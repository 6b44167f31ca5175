#!/usr/bin/env node
// The application of tinysio's `server` on the official Node server. It tests the tests: what a scenario
// expects must hold here too, so a failure against tinysio is tinysio's and not a fault of the scenario.
// It takes the flags that the scenarios use and prints the same first line; it is no server to run.

import { once } from 'node:events';
import { createServer } from 'node:http';
import { parseArgs } from 'node:util';
import { Server } from 'socket.io';

const option = (fallback) => ({ type: 'string', default: fallback });
const { values: flags } = parseArgs({
  options: {
    host: option('127.0.0.1'), port: option('5000'),
    'auth-token': option(''), 'max-payload': option('1000000'),
    'rate-limit': option('50'), 'rate-burst': option('200'),
    'ping-interval': option('25s'), 'ping-timeout': option('20s'),
    'test-events': { type: 'boolean', default: false },
  },
});
const milliseconds = (duration) => parseFloat(duration) * (duration.endsWith('ms') ? 1 : 1000);
const now = () => Date.now() / 1000;
const uptime = () => process.uptime();

const http = createServer(health);
const io = new Server(http, {
  cors: { origin: '*' },
  maxHttpBufferSize: Number(flags['max-payload']),
  pingInterval: milliseconds(flags['ping-interval']),
  pingTimeout: milliseconds(flags['ping-timeout']),
});

const clients = () => io.of('/').sockets.size;
/** A room of the application; the prefix keeps it apart from the private room that every socket has. */
const address = (room) => `room:${room}`;
const members = (room) => io.of('/').adapter.rooms.get(address(room))?.size ?? 0;

io.use((socket, next) => {
  const refused = flags['auth-token'] && socket.handshake.auth.token !== flags['auth-token'];
  next(refused ? new Error('Unauthorized') : undefined);
});

io.on('connection', (socket) => {
  const client = { socket, sid: socket.id, messages: 0, rooms: new Set(), tokens: Number(flags['rate-burst']), refilled: now(), breaches: 0 };
  socket.emit('message', { data: 'Welcome! You are connected to the server.', server_time: uptime(), client_id: client.sid, total_clients: clients() });
  socket.broadcast.emit('client_notification', { type: 'user_connected', user_id: client.sid, total_clients: clients(), timestamp: now() });

  socket.onAny((event, ...args) => {
    const ack = typeof args.at(-1) === 'function' ? args.pop() : undefined;
    if (!admitted(client)) return;
    if (flags['test-events'] && Object.hasOwn(testEvents, event)) return testEvents[event](client, args, ack);
    const refusal = Object.hasOwn(events, event) && events[event](client, args[0] ?? null);
    if (refusal) fail(client, ...[refusal].flat());
    ack?.();
  });
  socket.on('disconnect', () => {
    for (const room of client.rooms) announceLeaving(client, room);
    socket.broadcast.emit('client_notification', { type: 'user_disconnected', user_id: client.sid, total_clients: clients(), timestamp: now() });
  });
});

/** Each takes the client and the first argument; what it returns is a refusal: a text, or text and offending data. */
const events = {
  message(client, value) {
    if (value === null) return 'Invalid message format';
    if (characters(value) > 10_000) return 'Message too long (max 10KB)';
    client.socket.emit('message_received', { sender: client.sid, message: value, timestamp: now(), message_id: `${client.sid}_${++client.messages}` });
    client.socket.broadcast.emit('broadcast_message', { sender: client.sid, message: value, timestamp: now(), total_clients: clients() });
  },
  custom_event(client, value) {
    if (value === null) return 'Invalid custom event data';
    if (holdsBinary(value)) return 'Custom event data not serializable';
    const size = Buffer.byteLength(JSON.stringify(value));
    if (size > 50_000) return `Custom event data too large: ${size} bytes`;
    client.socket.emit('custom_response', { status: 'received', original_data: value, processed_by: 'server', client_id: client.sid, timestamp: now(), data_size: size });
  },
  join_room(client, request) {
    if (!isObject(request) || !('room' in request)) return ["Invalid room join request - 'room' field required", request];
    if (typeof request.room !== 'string') return 'Room name must be a string';
    const room = request.room.trim();
    if ([...room].length > 100) return 'Room name too long (max 100 characters)';
    if (!room) return 'Room name cannot be empty';
    if (forbidden(room)) return 'Room name contains invalid characters';
    if (client.rooms.has(room)) return void client.socket.emit('room_joined', { room, status: 'already_in_room' });
    client.rooms.add(room);
    client.socket.join(address(room));
    client.socket.emit('room_joined', { room, status: 'joined', room_members: members(room), timestamp: now() });
    client.socket.to(address(room)).emit('user_joined_room', { user_id: client.sid, room, room_members: members(room), timestamp: now() });
  },
  leave_room(client, request) {
    if (!isObject(request) || !('room' in request)) return ["Invalid room leave request - 'room' field required", request];
    const room = roomName(request.room);
    if (!room) return 'Invalid room name';
    if (forbidden(room)) return 'Room name contains invalid characters';
    if (!client.rooms.delete(room)) return void client.socket.emit('room_left', { room, status: 'not_in_room' });
    client.socket.leave(address(room));
    client.socket.emit('room_left', { room, status: 'left', remaining_members: members(room), timestamp: now() });
    announceLeaving(client, room);
  },
  room_message(client, request) {
    if (!isObject(request) || !('room' in request && 'message' in request)) {
      return ["Invalid room message - 'room' and 'message' fields required", request];
    }
    const { message } = request;
    const room = roomName(request.room);
    if (!room) return 'Invalid room name';
    if (forbidden(room)) return 'Room name contains invalid characters';
    if (typeof message !== 'string' && (typeof message !== 'object' || message === null)) return 'Invalid message format';
    if (characters(message) > 10_000) return 'Room message too long (max 10KB)';
    if (!client.rooms.has(room)) return `You are not in room '${room}'. Join the room first.`;
    io.to(address(room)).emit('room_broadcast', { sender: client.sid, room, message, timestamp: now(), room_members: members(room) });
  },
  get_server_status(client) {
    client.socket.emit('server_status', { total_clients: clients(), server_uptime: uptime(), client_rooms: [...client.rooms], client_messages: client.messages, timestamp: now() });
  },
};

const testEvents = {
  echo: ({ socket }, args, ack) => (ack ? ack(...args) : socket.emit('echo_back', ...args)),
  ask: ({ socket }, args) => socket.timeout(2000).emit('question', ...args, (late, ...answer) =>
    late ? socket.emit('ask_timeout') : socket.emit('answered', ...answer)),
  kick: ({ socket }) => socket.disconnect(),
};
if (flags['test-events']) io.of('/custom').on('connection', (socket) => socket.emit('auth', socket.handshake.auth));

function announceLeaving(client, room) {
  io.to(address(room)).emit('user_left_room', { user_id: client.sid, room, type: 'user_left_room', remaining_members: members(room), timestamp: now() });
}

function fail(client, message, offending) {
  const data = truthy(offending) ? { original_data: JSON.stringify(offending).slice(0, 500) } : {};
  client.socket.emit('error', { error: true, message, timestamp: now(), client_id: client.sid, ...data });
}

/** A token bucket; the twentieth breach ends the connection. */
function admitted(client) {
  const [rate, burst, at] = [Number(flags['rate-limit']), Number(flags['rate-burst']), now()];
  client.tokens = Math.min(burst, client.tokens + (at - client.refilled) * rate);
  client.refilled = at;
  if (rate === 0 || client.tokens >= 1) return (client.tokens -= 1), true;
  fail(client, 'Rate limit exceeded');
  if (++client.breaches === 20) client.socket.disconnect(true);
  return false;
}

const isObject = (value) => typeof value === 'object' && value !== null && !Array.isArray(value);
const truthy = (value) => Boolean(value) && (typeof value !== 'object' || Object.keys(value).length > 0);
const roomName = (value) => (typeof value === 'string' ? value.trim() : '');
const forbidden = (room) => /[<>"'&\p{Cc}]/u.test(room);
const characters = (value) => [...(typeof value === 'string' ? value : JSON.stringify(value))].length;
const holdsBinary = (value) => Buffer.isBuffer(value) || (typeof value === 'object' && value !== null && Object.values(value).some(holdsBinary));

function health(request, response) {
  const answer = (status, headers, body) => response.writeHead(status, headers).end(body);
  if (new URL(request.url, 'http://localhost').pathname !== '/health') return answer(404);
  if (!['GET', 'HEAD'].includes(request.method)) return answer(405, { allow: 'GET, HEAD' });
  answer(200, { 'content-type': 'application/json' },
    JSON.stringify({ status: 'healthy', clients: clients(), timestamp: now(), uptime: uptime(), version: 'reference' }));
}

async function shutDown() {
  setTimeout(() => process.exit(0), 2000); // a peer that neither reads nor leaves holds the rest back
  io.emit('server_notification', { type: 'server_shutdown', message: 'Server is shutting down', timestamp: now() });
  // io.close() throws away what waits for a client's next poll.
  const queued = Object.values(io.engine.clients).filter((client) => client.writeBuffer.length > 0);
  await Promise.all(queued.map((client) => once(client, 'drain')));
  io.close(() => process.exit(0));
}
process.once('SIGINT', shutDown).once('SIGTERM', shutDown);

http.listen(Number(flags.port), flags.host, () => console.log(`Starting Socket.IO server on http://${flags.host}:${http.address().port}`));
