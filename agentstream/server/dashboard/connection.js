/**
 * The WebSocket: connects, authenticates, keeps alive, reconnects. What is to be subscribed to is asked anew on each connection, so
 * that a resume begins where the state is.
 *
 * Messages are queued as text and taken in batches, once per frame and at most `BUDGET` milliseconds long, so that a flood of
 * events never holds up a frame. The queue is bounded: over `MAX_QUEUE` it is emptied at once, which holds up the page and
 * thereby, through TCP, the daemon's cursor for this subscriber, but loses nothing.
 */

// A frame has 16.7 ms; what is drawn needs the rest.
const BUDGET = 8;
const MAX_QUEUE = 50_000;
const FIRST_DELAY = 250;
const MAX_DELAY = 10_000;
// A connection that has said nothing for this long is asked whether it is still there.
const QUIET = 20_000;
const PATIENCE = 10_000;

export class Connection {
  /**
   * @param {object} options
   * @param {string} options.url
   * @param {() => string | null} options.token
   * @param {() => object[]} options.subscriptions the messages that subscribe to what is looked at
   * @param {(message: object) => void} options.onMessage
   * @param {(behind: boolean) => void} options.onBatch after each batch of messages; `behind`: more are waiting
   * @param {(state: "connecting" | "live" | "reconnecting" | "refused") => void} options.onState
   */
  constructor(options) {
    this._options = options;
    this._socket = null;
    this._queue = [];
    this._taken = 0;
    this._attempts = 0;
    this._everLive = false;
    this._stopped = true;
    this._retry = null;
    this._alive = null;
    this._scheduled = false;
    this._heard = false;
    this._confirmed = false;
    addEventListener("online", () => this._now());
    document.addEventListener("visibilitychange", () => {
      if (document.visibilityState === "visible") this._now();
    });
  }

  start() {
    this._stopped = false;
    this._attempts = 0;
    this._open();
  }

  stop() {
    this._stopped = true;
    clearTimeout(this._retry);
    this._close();
  }

  /** Send a message if there is a connection; subscriptions are repeated on the next one anyway. */
  send(message) {
    if (this._socket?.readyState === WebSocket.OPEN) this._socket.send(JSON.stringify(message));
  }

  _now() {
    if (!this._stopped && !this._socket) {
      clearTimeout(this._retry);
      this._open();
    }
  }

  _open() {
    this._close();
    this._options.onState(this._everLive ? "reconnecting" : "connecting");
    this._confirmed = false;
    const socket = new WebSocket(this._options.url);
    this._socket = socket;
    const mine = (handler) => (event) => {
      if (this._socket === socket) handler(event);
    };
    socket.onopen = mine(() => {
      const token = this._options.token();
      if (token) this.send({ type: "auth", token });
      for (const message of this._options.subscriptions()) this.send(message);
    });
    socket.onmessage = mine((event) => this._received(event.data));
    socket.onclose = mine((event) => this._closed(event));
    this._keepAlive();
  }

  _close() {
    const socket = this._socket;
    this._socket = null;
    clearTimeout(this._alive);
    if (!socket) return;
    // What was received is still taken: the resume begins after it.
    this._drain(Infinity);
    socket.close();
  }

  _closed(event) {
    this._socket = null;
    clearTimeout(this._alive);
    this._drain(Infinity);
    if (this._stopped) return;
    if (event.code === 1008) {
      this._stopped = true;
      this._options.onState("refused");
      return;
    }
    this._options.onState(this._everLive ? "reconnecting" : "connecting");
    // Full jitter: pages that lost the same daemon don't come back at the same moment.
    const limit = Math.min(MAX_DELAY, FIRST_DELAY * 2 ** this._attempts);
    this._attempts += 1;
    this._retry = setTimeout(() => this._open(), FIRST_DELAY / 2 + Math.random() * limit);
  }

  _keepAlive() {
    clearTimeout(this._alive);
    this._alive = setTimeout(() => {
      this.send({ type: "ping" });
      this._alive = setTimeout(() => {
        this._close();
        this._closed({ code: 1006 });
      }, PATIENCE);
    }, QUIET);
  }

  _received(text) {
    if (!this._heard) this._keepAlive();
    this._heard = true;
    this._queue.push(text);
    if (this._queue.length - this._taken > MAX_QUEUE) this._drain(Infinity);
    else this._schedule();
  }

  _schedule() {
    if (this._scheduled) return;
    this._scheduled = true;
    const run = () => {
      this._scheduled = false;
      this._heard = false;
      this._drain(BUDGET);
    };
    // Frames stop in a hidden page; timers don't.
    if (document.visibilityState === "visible") requestAnimationFrame(run);
    else setTimeout(run, 250);
  }

  _drain(budget) {
    const end = performance.now() + budget;
    while (this._taken < this._queue.length) {
      const message = JSON.parse(this._queue[this._taken]);
      this._taken += 1;
      if (message.type === "subscription_confirmed" && !this._confirmed) this._live();
      this._options.onMessage(message);
      if (this._taken % 16 === 0 && performance.now() > end) break;
    }
    const behind = this._taken < this._queue.length;
    if (!behind) {
      this._queue = [];
      this._taken = 0;
    } else {
      // Shift rarely: removing from the head of a long array costs its length.
      if (this._taken > 4096) {
        this._queue.splice(0, this._taken);
        this._taken = 0;
      }
      this._schedule();
    }
    this._options.onBatch(behind);
  }

  _live() {
    this._confirmed = true;
    this._attempts = 0;
    this._everLive = true;
    this._options.onState("live");
  }
}
