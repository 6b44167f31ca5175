// The official JavaScript client against a server: node official.mjs --server PATH [--transport TRANSPORT] [--scenario NAME].
// Each scenario runs on each transport with a server process of its own; `--reference` tests the official server instead.

import { connect as connectTcp } from 'node:net';
import { cases, check, duration, main, request, same, scenario, text, timestamp, within } from './harness.mjs';

scenario('connect', {}, async (stage) => {
  const alice = await stage.peer();
  same(alice.log, ['connect', 'message'], 'what came first');
  same(alice.welcome, { data: 'Welcome! You are connected to the server.', server_time: duration, client_id: alice.id, total_clients: 1 }, 'welcome');
  const bob = await stage.peer();
  same(bob.welcome.total_clients, 2, "the second one's total_clients");
  same(await alice.next('client_notification'), { type: 'user_connected', user_id: bob.id, total_clients: 2, timestamp }, 'notification');
  await bob.settle();
  bob.none('client_notification');
});

scenario('auth_accepted', { flags: ['--auth-token', 's3cret'] }, async (stage) => {
  const alice = await stage.peer({ auth: { token: 's3cret' } });
  same(await alice.call('echo', 'in'), ['in'], 'echo');
});

scenario('auth_refused', { flags: ['--auth-token', 's3cret'] }, async (stage) => {
  const alice = await stage.peer({ auth: { token: 's3cret' } });
  for (const auth of [undefined, {}, { token: 'wrong' }, { token: '' }, { token: 's3cret ' }, { token: ['s3cret'] }, { token: null }]) {
    const mallory = stage.opening({ auth });
    same(await mallory.next('connect_error'), 'Unauthorized', `with ${JSON.stringify(auth)}`);
    same(mallory.log, ['connect_error'], 'all that the refused one got');
  }
  const bob = await stage.peer({ auth: { token: 's3cret' } });
  same(bob.welcome.total_clients, 2, 'total_clients without the refused');
  same((await alice.next('client_notification')).user_id, bob.id, 'the only notification');
  await alice.settle();
  alice.none('client_notification');
});

scenario('messages', {}, async (stage) => {
  const [alice, bob, carol] = await stage.peersNamed(3);
  for (const [index, message] of cases.values.entries()) {
    alice.emit('message', message);
    same(await alice.next('message_received'), { sender: alice.id, message, timestamp, message_id: `${alice.id}_${index + 1}` }, 'message_received');
    for (const other of [bob, carol]) {
      same(await other.next('broadcast_message'), { sender: alice.id, message, timestamp, total_clients: 3 }, 'broadcast_message');
    }
  }
  alice.none('broadcast_message');
  bob.none('message_received');
});

scenario('message_ids', {}, async (stage) => {
  const [alice, bob] = await stage.peersNamed(2);
  for (const n of [1, 2]) {
    for (const peer of [alice, bob]) {
      await peer.call('message', `number ${n}`);
      same((await peer.next('message_received')).message_id, `${peer.id}_${n}`, 'message_id');
    }
  }
  await alice.call('message', null);
  await alice.next('error');
  await alice.call('custom_event', 'not counted');
  await alice.call('message', 'after a refused one');
  same((await alice.next('message_received')).message_id, `${alice.id}_3`, 'message_id after a refused message');
});

scenario('custom_event', {}, async (stage) => {
  const [alice, bob] = await stage.peersNamed(2);
  const respond = async (value, size) => {
    await alice.call('custom_event', value);
    same(await alice.next('custom_response'), { status: 'received', original_data: value, processed_by: 'server', client_id: alice.id, timestamp, data_size: size }, 'custom_response');
  };
  for (const [value, size] of cases.data_sizes) await respond(value, size);
  for (const value of cases.values) await respond(value, (size) => Number.isInteger(size) && size > 0);
  await bob.settle();
  bob.none('custom_response', 'broadcast_message');
});

scenario('echo', {}, async (stage) => {
  const alice = await stage.peer();
  for (const args of [...cases.argument_lists, ...cases.values.map((value) => [value])]) {
    same(await alice.call('echo', ...args), args, 'ack');
    alice.emit('echo', ...args);
    same(await alice.take('echo_back'), args, 'echo_back');
  }
});

scenario('event_acks', {}, async (stage) => {
  const alice = await stage.peer();
  const requests = [
    ['message', 'hi', 'message_received'], ['custom_event', 'hi', 'custom_response'],
    ['join_room', { room: 'lobby' }, 'room_joined'], ['join_room', { room: 'lobby' }, 'room_joined'],
    ['room_message', { room: 'lobby', message: 'hi' }, 'room_broadcast'],
    ['leave_room', { room: 'lobby' }, 'room_left'], ['get_server_status', null, 'server_status'],
    ['message', null, 'error'], ['join_room', {}, 'error'], ['room_message', { room: 'lobby', message: 'hi' }, 'error'],
  ];
  for (const [event, argument, answer] of requests) {
    alice.log.length = 0;
    same(await alice.call(event, argument), [], `ack of ${event}`);
    same(alice.log, [answer, `ack of ${event}`], 'the answer, then the ack');
    await alice.next(answer);
  }
});

scenario('unknown_event', {}, async (stage) => {
  const alice = await stage.peer();
  alice.emit('no_such_event', { a: 1 });
  for (const event of ['no_such_event', '', 'constructor', '__proto__', 'toString', 'message ', 'connection']) {
    alice.socket.emit(event, 'anything', Buffer.from([1]), () => alice.log.push(`an ack of '${event}'`));
  }
  await alice.settle();
  same(alice.log, ['connect', 'message', 'ack of echo'], 'all that came');
});

scenario('ask', {}, async (stage) => {
  const alice = await stage.peer();
  const answers = [[], ['yes'], [1, 'two', { three: [3] }, null], ...cases.binary_lists];
  alice.socket.on('question', (...args) => {
    const [reply, question] = [args.pop(), args];
    reply(...answers[question[0]], ...question);
    reply('a second answer, to be ignored');
  });
  for (const [index, answer] of answers.entries()) {
    alice.emit('ask', index, 'extra');
    same(await alice.take('answered'), [...answer, index, 'extra'], 'answered');
  }
  alice.emit('ask', 0, Buffer.from('binary question'));
  same(await alice.take('answered'), [0, Buffer.from('binary question')], 'answered');
  await alice.settle();
  alice.none('answered', 'ask_timeout');
});

scenario('ask_timeout', {}, async (stage) => {
  const alice = await stage.peer();
  const asked = performance.now();
  alice.emit('ask', 'anybody there?');
  const [question, reply] = await alice.take('question');
  same(question, 'anybody there?', 'question');
  await alice.take('ask_timeout');
  const waited = performance.now() - asked;
  check(waited > 1900 && waited < 6000, `ask_timeout came after ${waited} ms, not about 2000`);
  reply('too late');
  await alice.settle();
  alice.none('answered');
});

scenario('binary', {}, async (stage) => {
  const alice = await stage.peer();
  for (const args of [...cases.binary_lists, cases.empty_buffer_list]) {
    same(await alice.call('echo', ...args), args, 'ack');
    alice.emit('echo', ...args);
    same(await alice.take('echo_back'), args, 'echo_back');
  }
  const bytes = Uint8Array.of(1, 2, 3, 4);
  same(await alice.call('echo', bytes, bytes.buffer, bytes.subarray(1, 3)), [bytes, bytes.buffer, bytes.slice(1, 3)], 'other kinds of binary');
});

scenario('binary_pipelined', {}, async (stage) => {
  const alice = await stage.peer();
  const lists = Array.from({ length: 20 }, (_, i) => [i, Buffer.alloc(i, i), { again: Buffer.from([i]) }]);
  for (const args of lists) alice.emit('echo', ...args);
  const acks = await Promise.all(lists.map((args) => alice.call('echo', ...args)));
  same(acks, lists, 'acks');
  for (const args of lists) same(await alice.take('echo_back'), args, 'echo_back');
});

scenario('rooms', {}, async (stage) => {
  const [alice, bob, carol] = await stage.peersNamed(3);
  const room = 'lobby';
  await alice.call('join_room', { room, extra: 'ignored' });
  same(await alice.next('room_joined'), { room, status: 'joined', room_members: 1, timestamp }, 'room_joined');
  await bob.call('join_room', { room: '  lobby ' });
  same(await bob.next('room_joined'), { room, status: 'joined', room_members: 2, timestamp }, 'room_joined');
  same(await alice.next('user_joined_room'), { user_id: bob.id, room, room_members: 2, timestamp }, 'user_joined_room');
  await bob.call('join_room', { room });
  same(await bob.next('room_joined'), { room, status: 'already_in_room' }, 'repeated join');
  bob.none('user_joined_room');

  for (const message of cases.room_values) {
    await alice.call('room_message', { room, message });
    for (const member of [alice, bob]) {
      same(await member.next('room_broadcast'), { sender: alice.id, room, message, timestamp, room_members: 2 }, 'room_broadcast');
    }
  }

  await bob.call('leave_room', { room });
  same(await bob.next('room_left'), { room, status: 'left', remaining_members: 1, timestamp }, 'room_left');
  same(await alice.next('user_left_room'), { user_id: bob.id, room, type: 'user_left_room', remaining_members: 1, timestamp }, 'user_left_room');
  await bob.call('leave_room', { room });
  same(await bob.next('room_left'), { room, status: 'not_in_room' }, 'repeated leave');
  await bob.call('room_message', { room, message: 'from outside' });
  same((await bob.next('error')).message, "You are not in room 'lobby'. Join the room first.", 'message from outside');
  await alice.call('room_message', { room, message: 'to myself' });
  same((await alice.next('room_broadcast')).room_members, 1, 'room_members after the leave');
  await alice.call('leave_room', { room });
  same((await alice.next('room_left')).remaining_members, 0, 'remaining_members of an empty room');

  for (const peer of [alice, bob, carol]) {
    await peer.settle();
    peer.none('room_broadcast', 'user_left_room', 'user_joined_room', 'broadcast_message');
  }
  check(!carol.log.some((event) => event.includes('room')), `the outsider got ${carol.log}`);
});

scenario('room_disconnect', {}, async (stage) => {
  const [alice, bob] = await stage.peersNamed(2);
  for (const room of ['one', 'two']) {
    await alice.call('join_room', { room });
    await bob.call('join_room', { room });
  }
  const user_id = bob.id;
  bob.socket.disconnect();
  same(await bob.next('disconnect'), 'io client disconnect', 'reason');
  const left = [await alice.next('user_left_room'), await alice.next('user_left_room')].sort((a, b) => (a.room < b.room ? -1 : 1));
  for (const [index, room] of ['one', 'two'].entries()) {
    same(left[index], { user_id, room, type: 'user_left_room', remaining_members: 1, timestamp }, 'user_left_room');
  }
  await alice.call('room_message', { room: 'one', message: 'alone' });
  same((await alice.next('room_broadcast')).room_members, 1, 'room_members after the disconnect');
});

scenario('private_address', {}, async (stage) => {
  const [alice, mallory] = await stage.peersNamed(2);
  await mallory.call('join_room', { room: alice.id });
  same((await mallory.next('room_joined')).room_members, 1, 'members of the room called after a sid');
  for (const event of ['message', 'custom_event', 'echo', 'get_server_status', 'join_room']) alice.emit(event, 'for alice only');
  await alice.next('error');
  await alice.settle();
  await mallory.call('room_message', { room: alice.id, message: 'from mallory' });
  await mallory.next('room_broadcast');
  await mallory.settle();
  mallory.none('message_received', 'custom_response', 'echo_back', 'server_status', 'error');
  await alice.settle();
  alice.none('room_broadcast', 'user_joined_room');
});

scenario('broadcast_order', {}, async (stage) => {
  const [alice, ...others] = await stage.peersNamed(4);
  const numbers = Array.from({ length: 100 }, (_, i) => i);
  for (const number of numbers) alice.emit('message', number);
  for (const other of others) {
    for (const number of numbers) same((await other.next('broadcast_message')).message, number, 'broadcast_message in order');
  }
  for (const number of numbers) {
    same((await alice.next('message_received')).message_id, `${alice.id}_${number + 1}`, 'message_received in order');
  }
  for (const peer of [alice, ...others]) {
    await peer.settle();
    peer.none('broadcast_message', 'message_received');
  }
});

scenario('namespaces', {}, async (stage) => {
  const alice = await stage.peer();
  const custom = stage.join(alice, '/custom', { auth: { token: 'abc', nested: [1, { deep: 'ü' }] } });
  same(await custom.next('auth'), { token: 'abc', nested: [1, { deep: 'ü' }] }, 'auth of /custom');
  same(custom.log, ['connect', 'auth'], 'what came on /custom');
  check(custom.id !== alice.id, 'the namespaces share a sid');
  check(custom.engine === alice.engine, 'the namespaces have a connection each');
  same(await alice.call('echo', 'on /'), ['on /'], 'echo');

  await custom.take('connect');
  custom.socket.disconnect();
  await custom.next('disconnect');
  same(await alice.call('echo', 'still on /'), ['still on /'], 'echo after /custom was left');
  custom.socket.connect();
  await custom.take('connect');
  await custom.next('auth');

  const alone = await stage.peer({ namespace: '/custom' });
  same(await alone.next('auth'), {}, 'auth without a payload');
});

scenario('unknown_namespace', {}, async (stage) => {
  const alice = await stage.peer();
  const nowhere = stage.join(alice, '/nope');
  same(await nowhere.next('connect_error'), 'Invalid namespace', 'refusal');
  same(await alice.call('echo', 'still on /'), ['still on /'], 'echo');
});

scenario('client_disconnect', {}, async (stage) => {
  const [alice, bob, carol] = await stage.peersNamed(3);
  const user_id = bob.id;
  bob.socket.disconnect();
  same(await bob.next('disconnect'), 'io client disconnect', 'reason');
  for (const other of [alice, carol]) await departure(other, user_id, 2);
  await alice.call('get_server_status');
  same((await alice.next('server_status')).total_clients, 2, 'total_clients after');

  bob.socket.connect();
  same((await bob.next('message')).total_clients, 3, 'total_clients after the return');
  check(bob.id !== user_id, 'the sid was used again');
});

scenario('server_disconnect', {}, async (stage) => {
  const alice = await stage.peer();
  const bob = await stage.peer({ reconnection: true });
  const user_id = bob.id;
  bob.emit('kick');
  same(await bob.next('disconnect'), 'io server disconnect', 'reason');
  check(!bob.socket.active, 'the kicked client would reconnect');
  await departure(alice, user_id, 1);
});

scenario('nothing_lost', {}, async (stage) => {
  const [alice, bob, carol] = await stage.peersNamed(3);
  const numbers = Array.from({ length: 50 }, (_, i) => i);
  const user_id = bob.id;
  for (const number of numbers) bob.emit('message', number);
  bob.socket.disconnect();
  await bob.next('disconnect');
  for (const number of numbers) same((await alice.next('broadcast_message')).message, number, 'sent before the client left');
  await departure(alice, user_id, 2);

  for (const number of numbers) carol.emit('echo', number);
  carol.emit('kick');
  for (const number of numbers) same(await carol.next('echo_back'), number, 'answered before the server hung up');
  same(await carol.next('disconnect'), 'io server disconnect', 'reason');
});

scenario('reconnect_after_restart', {}, async (stage) => {
  const alice = await stage.peer({ reconnection: true });
  await alice.call('join_room', { room: 'lobby' });
  const before = alice.id;
  await stage.server.stop('SIGKILL');
  const reason = await alice.next('disconnect');
  check(['transport close', 'transport error'].includes(reason), `reason is ${reason}`);
  await stage.start(stage.server.port);

  await alice.take('connect');
  check(alice.id !== before, 'the sid survived a new server');
  const welcome = await alice.next('message');
  same([welcome.client_id, welcome.total_clients], [alice.id, 1], 'new welcome');
  same(await alice.call('echo', 'back'), ['back'], 'echo');
  await alice.call('get_server_status');
  same((await alice.next('server_status')).client_rooms, [], 'rooms of the new session');
  // Attempts while nobody listened are what brought the client back.
  alice.inbox = alice.inbox.filter(({ event }) => event !== 'connect_error');
});

scenario('graceful_shutdown', {}, async (stage) => {
  for (const signal of ['SIGTERM', 'SIGINT']) {
    const peers = await stage.peersNamed(3);
    if (stage.transport === 'upgrade') await Promise.all(peers.map((peer) => peer.upgraded()));
    const idler = connectTcp(stage.server.port, '127.0.0.1').on('error', () => {});
    await within(new Promise((resolve) => idler.write('GET /health HTTP/1.1\r\nHost: ', resolve)), 'half a request to be written');

    const ended = stage.server.stop(signal);
    for (const peer of peers) {
      same(await peer.next('server_notification'), { type: 'server_shutdown', message: 'Server is shutting down', timestamp }, 'server_notification');
      await peer.next('disconnect');
    }
    same(await ended, 0, `exit code after ${signal}`);
    idler.destroy();
    await stage.start();
  }
});

scenario('max_payload', { flags: ['--max-payload', '20000', '--ping-interval', '1s', '--ping-timeout', '5s'] }, async (stage) => {
  const alice = await stage.peer();
  /** The event as it travels is `420["echo","…"]`; `limit` counts its bytes. */
  const filling = (bytes, letter) => letter.repeat(Math.ceil((bytes - '420["echo",""]'.length) / Buffer.byteLength(letter)));
  for (const letter of ['x', 'ü']) {
    const bob = await stage.peer({ reconnection: true });
    if (stage.transport === 'upgrade') await bob.upgraded();
    const under = filling(19_997, letter);
    same(await bob.call('echo', under), [under], 'echo just under the limit');

    const user_id = bob.id;
    bob.emit('echo', filling(20_010, letter));
    same(await bob.next('disconnect'), stage.transport === 'polling' ? 'transport error' : 'transport close', 'reason');
    await departure(alice, user_id, (total) => total === 1 || total === 2); // 2: the client is back already
    same(await alice.call('echo', 'control'), ['control'], 'echo');
    await bob.take('connect');
    same(await bob.call('echo', 'back'), ['back'], 'echo');
    bob.none('echo_back');
    bob.socket.disconnect();
    await bob.next('disconnect');
    await departure(alice, text, 1);
  }
});

scenario('heartbeat', { flags: ['--ping-interval', '1s', '--ping-timeout', '1s'] }, async (stage) => {
  const [alice, bob] = await stage.peersNamed(2);
  let pings = 0;
  const thrice = new Promise((resolve) => alice.socket.io.on('ping', () => ++pings === 3 && resolve()));
  const { engine } = bob;
  const send = engine._sendPacket;
  engine._sendPacket = (type, ...rest) => (type === 'pong' ? undefined : send.call(engine, type, ...rest));
  await departure(alice, bob.id, 1);
  await bob.next('disconnect');
  await within(thrice, () => `three pings; there were ${pings}`);
  same(await alice.call('echo', 'alive'), ['alive'], 'echo');
});

scenario('rate_limit', { flags: ['--rate-limit', '1', '--rate-burst', '10'] }, async (stage) => {
  const [alice, bob] = await stage.peersNamed(2);
  for (let n = 0; n < 12; n++) bob.emit('message', n);
  same(await bob.next('error'), { error: true, message: 'Rate limit exceeded', timestamp, client_id: bob.id }, 'error');
  const user_id = bob.id;
  for (let n = 0; n < 1000; n++) bob.emit('message', n);
  await bob.next('disconnect');
  await departure(alice, user_id, 1);
  const passed = alice.log.filter((event) => event === 'broadcast_message').length;
  check(passed >= 10 && passed < 30, `${passed} messages passed a burst of 10 at 1 a second`);
  same(await alice.call('echo', 'control'), ['control'], 'echo');
  bob.inbox = bob.inbox.filter(({ event }) => event !== 'error');
});

scenario('errors', { flags: ['--rate-limit', '0'] }, async (stage) => {
  const [alice, bob] = await stage.peersNamed(2);
  for (const { event, args, message, original_data } of cases.errors) {
    const what = `${event} ${JSON.stringify(args).slice(0, 60)}`;
    same(await alice.call(event, ...args), [], `ack of ${what}`);
    const error = await alice.next('error');
    same(error, { error: true, message, timestamp, client_id: alice.id, ...(original_data && { original_data: text }) }, what);
    if (!original_data) continue;
    const offending = JSON.stringify(args[0]);
    check(error.original_data.length <= 500, `original_data of ${what} has ${error.original_data.length} characters`);
    if (offending.length <= 500) same(JSON.parse(error.original_data), args[0], `original_data of ${what}`);
  }
  for (const { event, args, answer } of cases.accepted) {
    same(await alice.call(event, ...args), [], `ack of ${event}`);
    await alice.next(answer);
  }
  await bob.settle();
  bob.none('error');
});

scenario('server_status', {}, async (stage) => {
  const [alice, bob] = await stage.peersNamed(2);
  const status = async (peer) => {
    await peer.call('get_server_status');
    return peer.next('server_status');
  };
  same(await status(alice), { total_clients: 2, server_uptime: duration, client_rooms: [], client_messages: 0, timestamp }, 'fresh');
  for (const room of ['lobby', 'attic', 'cellar']) await alice.call('join_room', { room });
  await alice.call('leave_room', { room: 'attic' });
  await alice.call('message', 'counted');
  await alice.call('message', 'counted');
  await alice.call('room_message', { room: 'lobby', message: 'not counted' });
  await alice.call('custom_event', 'not counted');
  await alice.call('message', null);
  await alice.next('error');
  const later = await status(alice);
  same([later.client_rooms.sort(), later.client_messages], [['cellar', 'lobby'], 2], 'rooms and messages');
  same((await status(bob)).client_messages, 0, "the other one's messages");
});

scenario('crowd', { alone: true }, async (stage) => {
  const crowd = await stage.peersNamed(200);
  check(new Set(crowd.map((peer) => peer.id)).size === 200, 'sids repeat');
  const echoes = await Promise.all(crowd.map((peer, index) => peer.call('echo', index, peer.id)));
  same(echoes, crowd.map((peer, index) => [index, peer.id]), 'echo of each');
  await Promise.all(crowd.map((peer) => peer.call('join_room', { room: 'crowd' })));
  await crowd[0].call('room_message', { room: 'crowd', message: 'to all' });
  for (const peer of crowd) {
    same(await peer.next('room_broadcast'), { sender: crowd[0].id, room: 'crowd', message: 'to all', timestamp, room_members: 200 }, 'room_broadcast');
  }
});

scenario('health', { transports: ['http'] }, async (stage) => {
  await stage.peer();
  const health = (method) => request(`${stage.url}/health`, { method });
  const got = await health('GET');
  same(got.status, 200, 'GET');
  check(got.headers.get('content-type')?.startsWith('application/json'), `content-type is ${got.headers.get('content-type')}`);
  same(await got.json(), { status: 'healthy', clients: 1, timestamp, uptime: duration, version: text }, 'health');
  const head = await health('HEAD');
  same([head.status, await head.text()], [200, ''], 'HEAD');
  for (const method of ['POST', 'PUT', 'DELETE']) {
    const refused = await health(method);
    same(refused.status, 405, method);
    same(refused.headers.get('allow')?.split(/,\s*/).sort(), ['GET', 'HEAD'], 'Allow');
  }
  same((await request(`${stage.url}/nowhere`)).status, 404, 'an unknown path');
});

scenario('post_over_limit', { transports: ['http'], flags: ['--max-payload', '20000'] }, async (stage) => {
  const url = `${stage.url}/socket.io/?EIO=4&transport=polling`;
  const handshake = JSON.parse((await (await request(url)).text()).slice(1));
  same(handshake.maxPayload, 20_000, 'maxPayload of the handshake');
  const post = (body) => request(`${url}&sid=${handshake.sid}`, { method: 'POST', body });
  same((await post(`4${'x'.repeat(20_000)}`)).status, 413, 'POST over the limit');
  same((await post('40')).status, 200, 'a proper POST of the same session');
});

async function departure(witness, user_id, total_clients) {
  for (;;) {
    const notification = await witness.next('client_notification');
    if (notification.type === 'user_connected') continue;
    return same(notification, { type: 'user_disconnected', user_id, total_clients, timestamp }, 'client_notification');
  }
}

await main();
