// node's readline and JSON.parse over a file of lines: argv is FILE; prints how many lines and in how many seconds.
const { createReadStream } = require("node:fs");
const start = process.hrtime.bigint();
let lines = 0;
require("node:readline").createInterface({ input: createReadStream(process.argv[2]), crlfDelay: Infinity })
  .on("line", (line) => { try { JSON.parse(line); } catch {} lines++; })
  .on("close", () => console.log(lines, Number(process.hrtime.bigint() - start) / 1e9));
