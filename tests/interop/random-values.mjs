// Random values through a server and back: node random-values.mjs URL TRANSPORT SEED COUNT
// The server acknowledges `echo` with its arguments. What JavaScript can hold is compared as a value; JSON that it cannot
// hold (401 digits, equal keys) is written as a packet and must come back byte for byte.

import { connected, fail as failed } from './connected.mjs';

const [url, transport, seed, count] = process.argv.slice(2);
const PATIENCE = 10_000;

// mulberry32: the same seed gives the same values.
let state = Number(seed);
function random() {
  state = (state + 0x6d2b79f5) | 0;
  let t = Math.imul(state ^ (state >>> 15), 1 | state);
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
  return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
}
const below = (n) => Math.floor(random() * n);
const pick = (list) => list[below(list.length)];

const STRINGS = ['', 'a', '\ud83d', 'x\ude00y', '\ud83d\ude00', '"\\\n\u2028', '\u0000', '__proto_', 'null', 'é'.repeat(50)];
const NUMBERS = [0, -0.5, 1e300, 5e-324, 2 ** 53, -1, 0.1, 1.7976931348623157e308];
const RAW_NUMBERS = ['1'.repeat(401), '-0', '1.10', '1e999', '1E+2', '12345678901234567890123'];

function deep(inside, levels) {
  return '['.repeat(levels) + inside + ']'.repeat(levels);
}

/** A JSON text. `raw`: also such that JavaScript cannot hold. */
function json(raw, levels = 4) {
  switch (below(levels > 0 ? 8 : 5)) {
    case 0: return 'null';
    case 1: return pick(['true', 'false']);
    case 2: return raw && below(2) ? pick(RAW_NUMBERS) : JSON.stringify(pick(NUMBERS));
    case 3: case 4: return JSON.stringify(pick(STRINGS));
    case 5: return `[${Array.from({ length: below(4) }, () => json(raw, levels - 1)).join(',')}]`;
    case 6: return below(20) ? json(raw, levels - 1) : deep(json(raw, 0), 100 + below(1890));
    default: {
      const keys = Array.from({ length: below(4) }, (_, at) => (raw ? pick(['a', 'a', '', '\ud83d', '7']) : pick(STRINGS) + at));
      return `{${keys.map((key) => `${JSON.stringify(key)}:${json(raw, levels - 1)}`).join(',')}}`;
    }
  }
}

const fail = (what) => failed(`FAIL seed ${seed}: ${what}`);

/** `run` calls its argument once, in time. */
function within(what, run) {
  return new Promise((resolve) => {
    const timer = setTimeout(() => fail(`no answer to ${what.slice(0, 300)}`), PATIENCE);
    run((answer) => {
      clearTimeout(timer);
      resolve(answer);
    });
  });
}

const socket = await connected(url, transport);
for (let turn = 0; turn < Number(count); turn++) {
  const sent = Array.from({ length: below(4) }, () => json(false));
  const values = sent.map((text) => JSON.parse(text));
  const back = await within(sent.join(), (done) => socket.emit(pick(['echo', 7, '\ud83d']), ...values, (...answer) => done(answer)));
  if (JSON.stringify(back) !== JSON.stringify(values)) fail(`${JSON.stringify(values)} became ${JSON.stringify(back)}`);

  const raw = json(true);
  const id = 1_000_000 + turn;
  const packet = await within(raw, (done) => {
    const heard = (data) => {
      if (typeof data !== 'string' || !data.startsWith(`3${id}`)) return;
      socket.io.engine.off('data', heard);
      done(data);
    };
    socket.io.engine.on('data', heard);
    socket.io.engine.write(`2${id}["echo",${raw}]`);
  });
  if (packet !== `3${id}[${raw}]`) fail(`${raw} became ${packet}`);
}
socket.off('disconnect');
socket.disconnect();
console.log(`${count} turns passed`);
