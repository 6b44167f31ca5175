// JSON of LEVELS levels from socket.io-client, plain and beside bytes, around them and in the auth payload:
//   node deep-values.mjs URL polling|websocket|upgrade LEVELS
// The server acknowledges `deep` with how many attachments came and how long the JSON of the first argument is, `echo` with
// its arguments. Ends with 0 when all of it came and the session is the same as before.

import { connected, fail } from './connected.mjs';

const [url, transport, levels] = process.argv.slice(2);
const deep = (inside, depth) => Array.from({ length: depth }).reduce((value) => [value], inside);
const auth = { deep: deep(0, Number(levels) - 1) };
const socket = await connected(url, transport, { auth });
const { id } = socket;
const bytes = Buffer.from('b');
const placeholder = '{"_placeholder":true,"num":0}'.length;
const expect = (what, said, wanted) => {
  if (JSON.stringify(said) !== JSON.stringify(wanted)) fail(`${what}: ${JSON.stringify(said).slice(0, 200)}`);
};
const plain = deep(0, Number(levels));
expect('plain', await socket.emitWithAck('deep', plain), [0, 2 * levels + 1]);
expect('beside bytes', await socket.emitWithAck('deep', plain, bytes), [1, 2 * levels + 1]);
expect('around bytes', await socket.emitWithAck('deep', deep(bytes, levels - 1)), [1, 2 * (levels - 1) + placeholder]);
expect('back', await socket.emitWithAck('echo', plain), plain);
expect('the session', socket.id, id);
process.exit(0);
