// The official client in the storm of harness/crash: subscribers that say what they hear, publishers with `retries`.
//
// Options: --url URL --seed N --plan JSON, which has
//   subscribers: [{ listener, transport, rooms }], publishers: [{ publisher, listener, transport }]
// Reads orders, a line each: `publish`, `hush`; ends when its input does. Says, a line each:
//   joined LISTENER                    its rooms, for the first time
//   again LISTENER 1|0 MS REASON       connected again, recovered or not, after so long, lost for this reason
//   hears LISTENER PUBLISHER NUMBER    tick LISTENER LIFE NUMBER
//   begins PUBLISHER NUMBER            acknowledged PUBLISHER NUMBER
//   strange TEXT                       what should not be
import { createInterface } from 'node:readline';
import { parseArgs } from 'node:util';
import { io } from 'socket.io-client';

const TRANSPORTS = { polling: ['polling'], websocket: ['websocket'], upgrade: ['polling', 'websocket'] };
/** Messages that one publisher may have in its queue. */
const IN_QUEUE = 8;

const { values } = parseArgs({ options: { url: { type: 'string' }, seed: { type: 'string', default: '1' }, plan: { type: 'string' } } });
const plan = JSON.parse(values.plan);
const sockets = [];
let publishing = false;

const say = (...words) => process.stdout.write(`${words.join(' ')}\n`);

/** Numbers from the seed (mulberry32), less than `bound`. */
let seed = Number(values.seed) >>> 0;
function below(bound) {
  seed = (seed + 0x6d2b79f5) >>> 0;
  let mixed = Math.imul(seed ^ (seed >>> 15), seed | 1);
  mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
  return ((mixed ^ (mixed >>> 14)) >>> 0) % bound;
}

/** A socket that says what it hears; `opened` is called for the first session, and again when one was not recovered. */
function listen({ listener, transport }, options, opened) {
  const socket = io(values.url, {
    transports: TRANSPORTS[transport],
    forceNew: true,
    timeout: 3000,
    reconnectionDelay: 40,
    reconnectionDelayMax: 300,
    ...options,
  });
  let been = false;
  let lost = [0, ''];
  socket.on('connect', () => {
    if (been) say('again', listener, socket.recovered ? 1 : 0, Math.round(performance.now() - lost[0]), lost[1]);
    if (!socket.recovered) opened(socket, !been);
    been = true;
  });
  // After a server's goodbye the official client leaves the way back to its user.
  socket.on('disconnect', (reason) => {
    lost = [performance.now(), reason];
    if (reason === 'io server disconnect') socket.connect();
  });
  for (const name of ['news', 'note']) {
    socket.on(name, (_, publisher, number, body) => {
      const good = number % 7 === 0 ? Buffer.isBuffer(body) : typeof body === 'string';
      if (!good || body.length !== (number * 37) % 700) say('strange', `${number} of ${publisher} has a body of ${body?.length}`);
      say('hears', listener, publisher, number);
    });
  }
  socket.on('tick', (life, number) => say('tick', listener, life, number));
  sockets.push(socket);
  return socket;
}

for (const subscriber of plan.subscribers) {
  const join = (socket, first) => {
    // No `retries` here: an answer that is lost with its session is asked for once more.
    socket.timeout(3000).emit('join', subscriber.rooms, (error) => {
      if (error) join(socket, first);
      else if (first) say('joined', subscriber.listener);
    });
  };
  listen(subscriber, {}, join);
}

for (const publisher of plan.publishers) {
  const socket = listen(publisher, { retries: Infinity, ackTimeout: 1500 }, () => {});
  let [begun, acknowledged] = [0, 0];
  const publish = () => {
    if (publishing && begun - acknowledged < IN_QUEUE) {
      const number = ++begun;
      say('begins', publisher.publisher, number);
      socket.emit('publish', publisher.publisher, number, (error) => {
        if (error) say('strange', `publish fails: ${error.message}`);
        acknowledged = number;
        say('acknowledged', publisher.publisher, number);
      });
    }
    setTimeout(publish, below(80));
  };
  publish();
}

const orders = createInterface({ input: process.stdin });
orders.on('line', (order) => (publishing = order === 'publish'));
orders.on('close', () => {
  for (const socket of sockets) socket.disconnect();
  process.stdout.write('', () => process.exit(0));
});
