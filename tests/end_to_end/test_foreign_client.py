"""A client in another language with another library (Node and `ws`) gets what ours gets, also through a slow reader's pauses."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

from tests.end_to_end.house import PATIENCE, Daemon

_WS: Final = Path(__file__).parents[2] / ".tools/node_modules/ws"
_NODE: Final = shutil.which("node")

pytestmark = pytest.mark.skipif(
    _NODE is None or not _WS.exists(), reason="Node's ws is not installed: npm install --prefix .tools ws"
)

#: Subscribes, says when it is subscribed, prints every message as it came, pauses now and then, and leaves at the end.
_CLIENT: Final = """
const WebSocket = require(process.argv[1]);
const [url, token] = process.argv.slice(2);
const socket = new WebSocket(url, { headers: { authorization: "Bearer " + token } });
let count = 0;
socket.on("open", () => socket.send(JSON.stringify({ type: "subscribe", workOrderId: "wo-ws" })));
socket.on("message", (data) => {
  console.log(data.toString());
  const message = JSON.parse(data);
  if (++count % 500 === 0) { socket.pause(); setTimeout(() => socket.resume(), 20); }
  if (message.type === "work_order_updated" && message.status === "succeeded") socket.close();
});
socket.on("error", (error) => { console.error(error.message); process.exit(1); });
"""


def test_a_client_in_node_gets_every_event_in_order(tmp_path: Path) -> None:
    assert _NODE is not None
    with Daemon(tmp_path) as daemon, daemon.subscriber() as ours:
        address = daemon.address.replace("http", "ws", 1) + "/ws"
        with subprocess.Popen(
            [_NODE, "-e", _CLIENT, str(_WS), address, daemon.token], stdout=subprocess.PIPE, text=True
        ) as client:
            assert client.stdout is not None
            theirs = [json.loads(client.stdout.readline())]
            assert theirs[0]["type"] == "subscription_confirmed"
            ours.subscribe("wo-ws")
            daemon.submit("for i in $(seq 1 3000); do echo line $i ☃; done", id="wo-ws")
            ours.until_ended("wo-ws")
            theirs += [json.loads(line) for line in client.stdout]
            assert client.wait(PATIENCE) == 0
    said = "\n".join(message["content"] for message in theirs if message["type"] == "agent_output")
    assert said.split("\n") == [f"line {number} ☃" for number in range(1, 3001)]
    assert theirs[1:] == ours.seen[1:]
