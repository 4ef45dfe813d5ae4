"""Fan-out with `websockets`, by its broadcast(), on uvloop where it is installed, else on asyncio's own loop.

argv is EVENTS RATE SIZE CLIENTS. The protocol is told in bench/duel.py.
"""

import asyncio
import sys
import time
from importlib.util import find_spec

from websockets.asyncio.server import ServerConnection, broadcast, serve

HEAD, END = '{"type":"agent_output","content":"', '~END~"}'


async def main(events: int, rate: int, size: int) -> None:
    """Serve until told to stop."""
    loop = asyncio.get_running_loop()
    connections: set[ServerConnection] = set()

    async def handler(connection: ServerConnection) -> None:
        connections.add(connection)
        await connection.wait_closed()

    async with serve(handler, "127.0.0.1", 0, compression=None, ping_interval=None) as server:
        print(next(iter(server.sockets)).getsockname()[1], flush=True)
        await loop.run_in_executor(None, sys.stdin.readline)
        before, start = time.process_time(), loop.time()
        for index in range(events):
            end = END if index == events - 1 else '"}'
            text = HEAD + "x" * (size - len(HEAD) - len(end)) + end
            await asyncio.sleep(max(0.0, start + (index + 1) / rate - loop.time()) if rate else 0)
            broadcast(connections, text)
        await loop.run_in_executor(None, sys.stdin.readline)
        print(time.process_time() - before, flush=True)
        for connection in connections:
            connection.transport.abort()


if __name__ == "__main__":
    factory = None
    if find_spec("uvloop"):
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main(*map(int, sys.argv[1:4])))
