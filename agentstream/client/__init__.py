"""A Trio client of the daemon: it reconnects, resumes by ``seq``, and neither repeats nor misses an event.

    async with connect("http://127.0.0.1:7171", token) as client:
        async for event in client.subscribe(work_order_id, since=0):
            print(event)

`cursor` (pure) knows what to ask for and which event comes next, `transport` opens streams and makes HTTP calls, `websocket` is
the only file here that knows trio-websocket, `subscription` is what one iterates, and `session` what one connects.
"""

from agentstream.client.cursor import Backoff
from agentstream.client.session import Client, connect
from agentstream.client.subscription import OnGap, Retry, Subscription
from agentstream.client.transport import Address, Api

__all__ = ["Address", "Api", "Backoff", "Client", "OnGap", "Retry", "Subscription", "connect"]
