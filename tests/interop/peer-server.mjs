// The official server, as a peer for the tests of the client (tests/client). Prints `PORT n` when it listens.
// Options: --port N --transports a,b --ping-interval MS --ping-timeout MS --max-payload BYTES --no-upgrade --recovery
import { createServer } from "node:http";
import { parseArgs } from "node:util";
import { Server } from "socket.io";

const { values } = parseArgs({
  options: {
    port: { type: "string", default: "0" },
    transports: { type: "string", default: "polling,websocket" },
    "ping-interval": { type: "string", default: "25000" },
    "ping-timeout": { type: "string", default: "20000" },
    "max-payload": { type: "string", default: "1000000" },
    "no-upgrade": { type: "boolean", default: false },
    recovery: { type: "boolean", default: false },
  },
});

const http = createServer();
const io = new Server(http, {
  transports: values.transports.split(","),
  pingInterval: Number(values["ping-interval"]),
  pingTimeout: Number(values["ping-timeout"]),
  maxHttpBufferSize: Number(values["max-payload"]),
  allowUpgrades: !values["no-upgrade"],
  ...(values.recovery && { connectionStateRecovery: {} }),
});

let connects = 0;
let counted = 0;

function serve(socket) {
  connects += 1;
  socket.emit("welcome", { transport: socket.conn.transport.name, connects });
  socket.on("echo", (...args) => args.pop()(...args));
  socket.on("shout", (...args) => socket.emit("shouted", ...args));
  socket.on("ask", (...args) =>
    socket.timeout(20000).emit("question", ...args, (error, ...answer) =>
      error ? socket.emit("ask_timeout") : socket.emit("answered", ...answer)),
  );
  socket.on("auth", (ack) => ack(socket.handshake.auth));
  socket.on("query", (ack) => ack(socket.handshake.query, socket.handshake.headers));
  socket.on("transport", (ack) => ack(socket.conn.transport.name));
  socket.on("flood", (n) => {
    for (let i = 0; i < n; i++) socket.emit("n", i);
  });
  socket.on("count", () => (counted += 1));
  socket.on("counted", (ack) => ack(counted));
  socket.on("silent", () => {});
  let tries = 0;
  socket.on("flaky", (value, ack) => {
    tries += 1;
    if (tries % 3 === 0) ack(value, tries);
  });
  socket.on("kick", () => socket.disconnect());
  socket.on("kick_hard", () => socket.disconnect(true));
  socket.on("drop", () => socket.conn.close());
  socket.on("close", (id, ack) => ack(io.sockets.sockets.get(id)?.conn.close()));
  socket.on("join", (room, ack) => ack(socket.join(room)));
  socket.on("tell", (room, ...args) => {
    const ack = args.pop();
    ack((room ? io.to(room) : io).emit("told", ...args));
  });
  socket.on("sockets", (ack) => ack(io.sockets.sockets.size));
  socket.on("members", (namespace, ack) => ack(io.of(namespace).sockets.size));
}

io.on("connection", serve);
io.of("/chat").on("connection", serve);
io.of("/slow").use((socket, next) => setTimeout(next, 300));
io.of("/slow").on("connection", serve);
io.of("/private").use((socket, next) => {
  if (socket.handshake.auth.token === "good") return next();
  const error = new Error("not allowed");
  error.data = { code: 7 };
  next(error);
});
io.of("/private").on("connection", serve);

http.listen(Number(values.port), "127.0.0.1", () => console.log(`PORT ${http.address().port}`));
