"""The garbage collector of a process that lives for months: no long looks.

CPython's full collection looks at every object there is, and comes again whenever there are a quarter more of them. With ten
thousand connections it takes half a second, in which nobody gets an event; while they connected, such looks took a quarter of all
time. But what stays needs no looking at. So what has survived a full collection is set aside (`gc.freeze`), and full collections
come often: each object is looked at three times, then never again, and each look is short.

What was set aside is still freed as soon as nobody refers to it. Only objects that refer to each other in a ring need the
collector: connections, requests and runs are made so that none is left of them (`tests/test_collector.py`), and for whatever else
there may be, everything is looked at once a day.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

#: As `gc.set_threshold`: every third collection is a full one, of what came since the last full one.
_THRESHOLDS: Final = (700, 0, 0)
#: Seconds after which everything is looked at once more.
EVERYTHING_SECONDS: Final = 24 * 3600.0


@contextmanager
def short_collections(clock: Callable[[], float] = time.monotonic) -> Iterator[None]:
    """For the whole process, beginning with what there is already.

    For a program, once it has imported what it needs; a library must not do this to its host.
    """
    everything_at = clock() + EVERYTHING_SECONDS

    def collected(phase: str, info: Mapping[str, int]) -> None:
        nonlocal everything_at
        if phase == "stop" and info["generation"] == 2:
            if clock() < everything_at:
                gc.freeze()
            else:
                everything_at = clock() + EVERYTHING_SECONDS
                gc.unfreeze()

    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
    gc.callbacks.append(collected)
    try:
        yield
    finally:
        gc.callbacks.remove(collected)
        gc.set_threshold(*before)
        gc.unfreeze()
