"""A program for `test_kill`: lives that append as fast as they can, each killed with SIGKILL at a random moment.

``python -m tests.journal.lives JOURNAL SEEN LIVES SEED``. What a life publishes it writes to the file SEEN at once, as
``SEQ WORK_ORDER NUMBER .`` lines: that is what subscribers saw. A line without its full stop was cut off by the kill, and
seen by nobody. Each life goes on with the numbers where the journal ends.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Sequence

import trio

from agentstream.journal.base import Record
from agentstream.journal.sqlite import open_journal
from tests.journal.helpers import content, order, output

WORK_ORDERS = 4


async def live(journal_file: str, seen: int) -> None:
    async def publish(records: Sequence[Record]) -> None:
        lines = [f"{record.seq} {record.work_order_id} {content(record)} .\n" for record in records]
        os.write(seen, "".join(lines).encode())
        await trio.lowlevel.checkpoint()

    async def call(name: str, size: int) -> None:
        last = await journal.read(await journal.seq_before_last(1, name), work_order_ids=[name])
        number = int(content(last[-1])) if last else 0
        while True:
            batch = [output(number + index, work_order=name) for index in range(1, size + 1)]
            number += size
            await journal.append(batch, work_orders=[order(name, "running")])

    async with open_journal(journal_file, publish=publish) as journal, trio.open_nursery() as nursery:
        for index in range(WORK_ORDERS):
            nursery.start_soon(call, f"w{index}", 1 + 10 * index)


def main(journal_file: str, seen_file: str, lives: int, seed: int) -> None:
    chance = random.Random(seed)
    seen = os.open(seen_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for _ in range(lives):
        os.write(seen, b"\n")
        child = os.fork()
        if not child:
            trio.run(live, journal_file, seen)
        # From before the file is open to long after the first events.
        time.sleep(chance.uniform(0.0, 0.15))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            sys.exit("a life ended by itself")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
