// What one would write in an afternoon: node's readline and ws between agents and subscribers. No journal, no order over runs.
// argv is PATH_OF_WS AGENTS PROGRAM ARGUMENT...
const { WebSocketServer } = require(process.argv[2]);
const { spawn } = require("node:child_process");
const readline = require("node:readline");
const agents = Number(process.argv[3]);
const [program, ...args] = process.argv.slice(4);
const server = new WebSocketServer({ port: 0, host: "127.0.0.1", perMessageDeflate: false });
server.on("listening", () => console.log(server.address().port));
let left = agents;
readline.createInterface({ input: process.stdin }).on("line", (line) => {
  if (line !== "go") process.exit(0);
  for (let i = 0; i < agents; i++) {
    const child = spawn(program, args, { stdio: ["ignore", "pipe", "inherit"] });
    readline.createInterface({ input: child.stdout }).on("line", (text) => {
      for (const client of server.clients) client.send(text);
    }).on("close", () => { if (--left === 0) console.log("ended"); });
  }
});
