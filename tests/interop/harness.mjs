// What the scenarios of official.mjs stand on: a server process, a client with an inbox, bounded waits, the runner.

import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { isDeepStrictEqual, parseArgs } from 'node:util';
import { io } from 'socket.io-client';

/** Bound of every wait. It is only used up by a failure, so it is generous to a busy machine. */
const PATIENCE = 10_000;
/** Scenarios under way at once. Each has a server of its own, so they cannot see each other. */
const CONCURRENCY = 6;
const TRANSPORTS = { polling: ['polling'], websocket: ['websocket'], upgrade: undefined, http: ['polling'] };

export class Failure extends Error {}

export function check(condition, what) {
  if (!condition) throw new Failure(what);
}

/** Settles as `promise` does, or fails after the bound with what it waited for. */
export async function within(promise, what, bound = PATIENCE) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Failure(`waited ${bound} ms for ${typeof what === 'function' ? what() : what}`)), bound);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** A plain HTTP request with the bound that every wait has. */
export const request = (url, options) => fetch(url, { ...options, signal: AbortSignal.timeout(PATIENCE) });

/** Equal in values, and the outermost object also in the order of its keys. A function in `expected` is a predicate. */
export function same(actual, expected, what) {
  const predicates = isPlainObject(expected) ? Object.entries(expected).filter(([, value]) => typeof value === 'function') : [];
  const filled = { ...expected };
  for (const [key, holds] of predicates) if (actual && holds(actual[key])) filled[key] = actual[key];
  const [got, wanted] = [plain(actual), plain(predicates.length ? filled : expected)];
  const ordered = !isPlainObject(got) || isDeepStrictEqual(Object.keys(got), Object.keys(wanted));
  check(isDeepStrictEqual(got, wanted) && ordered, `${what}: got ${show(got)}, expected ${show(wanted)}`);
}

export const timestamp = (value) => typeof value === 'number' && Math.abs(value - Date.now() / 1000) < 60;
export const duration = (value) => typeof value === 'number' && value >= 0;
export const text = (value) => typeof value === 'string' && value.length > 0;

const isPlainObject = (value) => typeof value === 'object' && value !== null && !Array.isArray(value) && !isBinary(value);
const isBinary = (value) => value instanceof ArrayBuffer || ArrayBuffer.isView(value);
const show = (value) => JSON.stringify(value, (_, part) => (typeof part === 'function' ? '<predicate>' : part))?.slice(0, 300);

/** Buffers, typed arrays and ArrayBuffers are the same bytes; what differs is the client's taste. */
function plain(value) {
  if (isBinary(value)) return { $binary: Buffer.from(value.buffer ?? value, value.byteOffset ?? 0, value.byteLength).toString('hex') };
  if (Array.isArray(value)) return value.map(plain);
  return isPlainObject(value) ? Object.fromEntries(Object.entries(value).map(([key, part]) => [key, plain(part)])) : value;
}

export const cases = JSON.parse(readFileSync(new URL('cases.json', import.meta.url), 'utf8'), (_, value) => {
  if (value?.$repeat) return value.$repeat[0].repeat(value.$repeat[1]);
  if (value?.$binary !== undefined) return Buffer.from(value.$binary, 'hex');
  if (value?.$ramp) return Buffer.from(Array.from({ length: value.$ramp }, (_, i) => i % 256));
  return value;
});

/** One process of the server under test, on a free port unless told. */
export class Server {
  static #running = new Set();
  static { process.on('exit', () => this.#running.forEach((child) => child.kill('SIGKILL'))); }

  static async start(command, flags, port = 0) {
    const server = new Server();
    server.log = '';
    server.child = spawn(command, ['--host', '127.0.0.1', '--port', String(port), '--test-events', ...flags], { stdio: ['ignore', 'pipe', 'pipe'] });
    Server.#running.add(server.child);
    server.exited = new Promise((resolve) => server.child.once('exit', (code, signal) => {
      Server.#running.delete(server.child);
      resolve(signal ?? code);
    }));
    const listening = new Promise((resolve, reject) => {
      server.child.once('error', (error) => reject(new Failure(`${command}: ${error.message}`)));
      server.exited.then((status) => reject(new Failure(`server ended with ${status} before it listened: ${server.log.slice(-300)}`)));
      for (const stream of [server.child.stdout, server.child.stderr]) {
        stream.setEncoding('utf8').on('data', (chunk) => {
          server.log = (server.log + chunk).slice(-100_000);
          const url = /Starting Socket\.IO server on (http:\/\/127\.0\.0\.1:\d+)\s/.exec(server.log)?.[1];
          if (url) resolve(url);
        });
      }
    });
    server.url = await within(listening, () => `the server's first line; it printed: ${server.log}`);
    server.port = Number(new URL(server.url).port);
    return server;
  }

  /** Sends the signal and returns how the process ended: its exit code, or the signal's name. */
  async stop(signal, bound = 5000) {
    this.child.kill(signal);
    return within(this.exited, `the server to end after ${signal}`, bound);
  }

  get alive() {
    return this.child.exitCode === null && this.child.signalCode === null;
  }
}

/** A socket of the official client. All that arrives, `connect` and `disconnect` too, waits in the inbox to be taken. */
export class Peer {
  constructor(socket) {
    this.socket = socket;
    this.inbox = [];
    this.log = []; // names only, in order of arrival, never taken from
    this.wake = () => {};
    socket.onAny((event, ...args) => this.#arrived(event, args));
    socket.on('connect', () => this.#arrived('connect', []));
    socket.on('disconnect', (reason) => this.#arrived('disconnect', [reason]));
    socket.on('connect_error', (error) => this.#arrived('connect_error', [error.message]));
  }

  get id() { return this.socket.id; }
  get engine() { return this.socket.io.engine; }

  #arrived(event, args) {
    this.log.push(event);
    this.inbox.push({ event, args });
    this.wake();
  }

  /** Takes the oldest `event` out of the inbox, waiting for it if need be, and returns its arguments. */
  async take(event) {
    const arrival = async () => {
      for (;;) {
        const at = this.inbox.findIndex((entry) => entry.event === event);
        if (at >= 0) return this.inbox.splice(at, 1)[0].args;
        await new Promise((resolve) => (this.wake = resolve));
      }
    };
    return within(arrival(), () => `'${event}'; in the inbox: ${show(this.inbox.map((entry) => entry.event))}`);
  }

  /** The first argument of the next `event`. */
  async next(event) {
    return (await this.take(event))[0];
  }

  none(...events) {
    const found = this.inbox.find((entry) => events.includes(entry.event));
    check(!found, `unexpected '${found?.event}' ${show(plain(found?.args))}`);
  }

  emit(event, ...args) {
    this.socket.emit(event, ...args);
  }

  /** Emits with an ack and returns the ack's arguments. */
  async call(event, ...args) {
    const acked = new Promise((resolve) => this.socket.emit(event, ...args, (...answer) => {
      this.log.push(`ack of ${event}`);
      resolve(answer);
    }));
    return within(acked, `the ack of '${event}'`);
  }

  /** A round trip: what the server had queued for this peer before is in the inbox after. */
  async settle() {
    await this.call('echo', 'settle');
  }

  /** Waits until polling has given way to WebSocket. */
  async upgraded() {
    const { engine } = this;
    const upgrade = engine.transport.name === 'websocket' ? undefined : new Promise((resolve) => engine.once('upgrade', resolve));
    await within(upgrade, 'the upgrade to websocket');
  }
}

/** What a scenario gets: a server, and peers on one transport. */
class Stage {
  peers = [];

  constructor(transport, command, flags) {
    Object.assign(this, { transport, command, flags });
  }

  async start(port) {
    this.server = await Server.start(this.command, this.flags, port);
    this.url = this.server.url;
  }

  /** A connected peer, its welcome taken and kept in `welcome`. */
  async peer(options) {
    const peer = this.opening(options);
    await peer.take('connect');
    if (peer.socket.nsp === '/') peer.welcome = await peer.next('message');
    return peer;
  }

  peersNamed(count, options) {
    return Promise.all(Array.from({ length: count }, () => this.peer(options)));
  }

  /** A peer that has begun to connect. No reconnecting unless asked for, lest it hide a loss. */
  opening({ namespace = '/', ...options } = {}) {
    const transports = TRANSPORTS[this.transport];
    const socket = io(this.url + namespace, {
      forceNew: true, reconnection: false, reconnectionDelay: 50, reconnectionDelayMax: 200, timeout: PATIENCE,
      ...(transports && { transports }), ...options,
    });
    return this.#admit(new Peer(socket));
  }

  /** A second namespace on the connection of `peer`. */
  join(peer, namespace, options) {
    return this.#admit(new Peer(peer.socket.io.socket(namespace, options)));
  }

  #admit(peer) {
    this.peers.push(peer);
    return peer;
  }

  /** What every scenario promises: nobody lost a connection or got an error unnoticed, the transport was the transport, the server lives and ends well. */
  async finish() {
    for (const peer of this.peers) {
      peer.none('disconnect', 'error', 'connect_error');
      if (!peer.socket.connected) continue;
      if (this.transport === 'upgrade') await peer.upgraded();
      else check(peer.engine.transport.name === TRANSPORTS[this.transport][0], `transport is ${peer.engine.transport.name}`);
    }
    this.close();
    check(this.server.alive, `the server ended by itself: ${this.server.log.slice(-300)}`);
    const status = await this.server.stop('SIGTERM');
    check(status === 0, `the server ended with ${status} after SIGTERM`);
  }

  close() {
    for (const { socket } of this.peers) socket.removeAllListeners().disconnect();
  }
}

const scenarios = [];

/** Registers a scenario. `transports`: where it runs; `alone`: with nothing beside it; `flags`: for the server. */
export function scenario(name, { transports = ['polling', 'websocket', 'upgrade'], flags = [], alone = false }, run) {
  scenarios.push({ name, transports, flags, alone, run });
}

async function perform({ name, transport, flags, run }, command) {
  const stage = new Stage(transport, command, flags);
  try {
    await stage.start();
    await run(stage);
    await stage.finish();
    check(!stage.server.log.includes('panicked at'), `a thread panicked: ${/panicked at.*\n?.*/.exec(stage.server.log)?.[0]}`);
    console.log(`ok ${transport} ${name}`);
    return true;
  } catch (error) {
    const reason = error instanceof Failure ? error.message : error.stack;
    console.log(`FAIL ${transport} ${name}: ${reason.replace(/\s*\n\s*/g, ' | ')}`);
    return false;
  } finally {
    stage.close();
    if (stage.server?.alive) await stage.server.stop('SIGKILL');
  }
}

export async function main() {
  const { values } = parseArgs({
    options: { server: { type: 'string' }, reference: { type: 'boolean' }, transport: { type: 'string', default: 'all' }, scenario: { type: 'string' } },
  });
  const command = values.reference ? new URL('reference-server.mjs', import.meta.url).pathname : values.server;
  const jobs = scenarios
    .flatMap((entry) => entry.transports.map((transport) => ({ ...entry, transport })))
    .filter(({ transport }) => values.transport === 'all' || transport === values.transport)
    .filter(({ name }) => !values.scenario || name === values.scenario);
  if (!command || jobs.length === 0) {
    console.error('usage: node official.mjs --server PATH | --reference [--transport polling|websocket|upgrade|http|all] [--scenario NAME]');
    console.error(`scenarios: ${scenarios.map(({ name }) => name).join(' ')}`);
    process.exit(2);
  }

  const verdicts = [];
  const work = async (queue) => {
    for (let job; (job = queue.shift()); ) verdicts.push(await perform(job, command));
  };
  const beside = jobs.filter(({ alone }) => !alone);
  await Promise.all(Array.from({ length: CONCURRENCY }, () => work(beside)));
  await work(jobs.filter(({ alone }) => alone));

  const failed = verdicts.filter((passed) => !passed).length;
  console.log(`${verdicts.length - failed} passed, ${failed} failed`);
  process.exit(failed ? 1 : 0);
}
