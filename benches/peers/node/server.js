// The official server with the handlers of harness/bench_server.rs: `node server.js PORT`.
// permessage-deflate is off by default; `ws` finds bufferutil, which unmasks in native code, by itself.
import { createServer } from "node:http";
import { Server } from "socket.io";

const port = Number(process.argv[2]);
if (!port) {
  console.error("usage: node server.js PORT");
  process.exit(2);
}
const http = createServer();
const io = new Server(http, { cors: { origin: "*" }, serveClient: false });

io.on("connection", (socket) => {
  socket.on("echo", (x) => socket.emit("echo", x));
  socket.on("ack_echo", (x, ack) => ack(x));
  socket.on("broadcast", (x) => io.emit("broadcast", x));
  socket.on("join", (room) => socket.join(room));
  socket.on("room_msg", (room, x) => io.to(room).emit("room_msg", x));
  socket.on("slow", (x) => setTimeout(() => socket.emit("slow", x), 50));
});

http.listen({ port, host: "127.0.0.1", backlog: 2048 }, () => console.log(`listening on 127.0.0.1:${port}`));
