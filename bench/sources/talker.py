"""An agent that says when it wrote: one thinking line each 1/RATE seconds, COUNT times. argv is RATE COUNT HOME.

What follows in argv is ignored. Before that it waits at the gate in HOME (`bench.daemon.Gate`) until all agents are there.
"""

import json
import os
import random
import signal
import sys
import time

# Nobody waits for ever, whatever becomes of who started it.
signal.alarm(300)
rate, count, home = float(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
os.write(os.open(f"{home}/arrivals", os.O_WRONLY), b".")
# Opening a FIFO for reading waits for a writer.
os.close(os.open(f"{home}/gate", os.O_RDONLY))
# So that the runs don't speak in step.
time.sleep(random.random() / rate)
for number in range(count):
    message = {
        "id": f"m{number}",
        "role": "assistant",
        "content": [{"type": "thinking", "thinking": f"@%d@{os.getpid()}@" + "x" * 200}],
    }
    line = json.dumps({"type": "assistant", "message": message, "session_id": "s"}) + "\n"
    os.write(1, line.replace("%d", str(time.monotonic_ns())).encode())
    time.sleep(1 / rate)
result = {
    "type": "result",
    "subtype": "success",
    "is_error": False,
    "result": "done",
    "session_id": "s",
    "num_turns": 1,
}
os.write(1, json.dumps(result).encode() + b"\n")
