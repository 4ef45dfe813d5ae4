// Fan-out with node's ws: argv is PATH_OF_WS EVENTS RATE SIZE (RATE 0: a burst). The protocol is told in bench/duel.py.
const { WebSocketServer } = require(process.argv[2]);
const [events, rate, size] = process.argv.slice(3).map(Number);
const server = new WebSocketServer({ port: 0, host: "127.0.0.1", perMessageDeflate: false });
server.on("listening", () => console.log(server.address().port));
const head = '{"type":"agent_output","content":"', end = '~END~"}';
const middle = head + "x".repeat(size - head.length - 2) + '"}';
const last = head + "x".repeat(size - head.length - end.length) + end;
const send = (i) => { const text = i === events - 1 ? last : middle; for (const client of server.clients) client.send(text); };
let before;
const go = () => {
  before = process.cpuUsage();
  if (!rate) { for (let i = 0; i < events; i++) send(i); return; }
  const start = process.hrtime.bigint();
  let i = 0;
  const timer = setInterval(() => {
    const due = Math.min(events, Math.floor(Number(process.hrtime.bigint() - start) / 1e9 * rate));
    while (i < due) send(i++);
    if (i === events) clearInterval(timer);
  }, 1);
};
require("node:readline").createInterface({ input: process.stdin }).on("line", (line) => {
  if (line === "go") return go();
  const { user, system } = process.cpuUsage(before);
  console.log((user + system) / 1e6);
  process.exit(0);
});
