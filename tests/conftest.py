"""For all tests: the daemons that they start heed SIGHUP, also where the tests run under nohup."""

from __future__ import annotations

import signal

signal.signal(signal.SIGHUP, signal.SIG_DFL)
