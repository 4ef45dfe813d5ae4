/**
 * The composition root: wires the connection, the state and the views; decides when to draw; follows the address bar.
 *
 * The daemon is asked in two ways. What happens comes over the WebSocket: `"*"` without details for the list, and the open work order
 * with everything. What is to be done, and what is looked up, goes over HTTP. Nothing is drawn but in `draw`, once a frame.
 */

import { Api, ApiError, segment } from "./api.js";
import { Connection } from "./connection.js";
import { h, setAttribute, setText } from "./dom.js";
import { compact } from "./format.js";
import { History } from "./history.js";
import * as store from "./store.js";
import { Activity } from "./views/activity.js";
import { Approvals } from "./views/approvals.js";
import { Composer } from "./views/composer.js";
import { Errors } from "./views/errors.js";
import { Files } from "./views/files.js";
import { Login } from "./views/login.js";
import { OrderList } from "./views/order-list.js";
import { Output } from "./views/output.js";
import { RunHeader } from "./views/run-header.js";
import { SubmitDialog } from "./views/submit.js";
import { Tabs } from "./views/tabs.js";
import { Tools } from "./views/tools.js";

const TOKEN_KEY = "agentstream.token";
// A work order's last so many events are replayed when it is opened; older ones are loaded when the reader scrolls back.
const REPLAY = 100_000;
const LIST_PAGE = 50;
// Milliseconds between two drawings while a backlog is taken.
const CATCHING_UP_PAUSE = 200;
const STATES = { connecting: "Connecting", live: "Live", reconnecting: "Reconnecting", refused: "Refused" };

const state = store.createState();
let token = takeToken();
let connectionState = "connecting";
/** The daemon's clock minus ours, in milliseconds. */
let skew = 0;
let epoch = null;
let pickedRun = null;
let list = { cursor: null, loaded: false };
let agents = [];
let subscribed = 0;
let drawing = false;
/** When it was drawn last, how long the frame after that took to come, and the timer of the next drawing that was put off. */
let drawn = 0;
let drawCost = 0;
let later = null;

const api = new Api(() => token);
const connection = new Connection({
  url: `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws`,
  token: () => token,
  subscriptions,
  onMessage: received,
  onBatch: batch,
  onState: (value) => {
    connectionState = value;
    if (value === "refused") login("The daemon refused this token.");
    schedule();
  },
});

// --- the page ------------------------------------------------------------------------------------------------------------

const loginView = new Login(async (value) => {
  token = value;
  await api.get("/work-orders?limit=1");
  remember(value);
  start();
});
const dialog = new SubmitDialog(
  loadAgents,
  async (request) => {
    const order = await api.post("/work-orders", request);
    store.putOrder(state, order);
    location.hash = `#/work-orders/${segment(order.id)}`;
  },
);
const orders = new OrderList(() => loadList(true));
const header = new RunHeader({
  cancel: () => act(() => api.delete(`/work-orders/${segment(state.detail.id)}`)),
  runAgain: () => act(() => api.post(`/work-orders/${segment(state.detail.id)}/runs`, { resume: false })),
  pickRun: (id) => {
    pickedRun = id;
    schedule();
  },
  pickCall: (call) => {
    tabs.select("tools");
    draw();
    tools.reveal(call);
  },
  again: schedule,
});
const approvals = new Approvals((requestId, decision, message) => api.post(`/approvals/${segment(requestId)}`, { decision, message }));
const past = new History(api, state);
const activity = new Activity({
  event: (seq) => past.event(seq),
  older: (run) => act(() => past.older(run)),
  latest: (run) => act(() => past.latest(run)),
});
const tools = new Tools(fetchCall);
const output = new Output(schedule);
const files = new Files(schedule);
const errors = new Errors();
const tabs = new Tabs(
  "What to show of the run",
  [
    { id: "activity", label: "Activity", view: activity },
    { id: "tools", label: "Tools", view: tools },
    { id: "output", label: "Output", view: output },
    { id: "files", label: "Files", view: files },
    { id: "errors", label: "Errors", view: errors },
  ],
  schedule,
);
const composer = new Composer({
  send: (text) => api.post(`/runs/${segment(currentRun().id)}/messages`, { text }),
  interrupt: () => api.post(`/runs/${segment(currentRun().id)}/interrupt`),
  closeInput: () => api.post(`/runs/${segment(currentRun().id)}/close-input`),
  resume: (text) => api.post(`/work-orders/${segment(state.detail.id)}/runs`, { taskPrompt: text, resume: true }),
});

const pill = h("span", { class: "connection", role: "status" }, h("span", { class: "dot", "aria-hidden": "true" }), h("span", { class: "connection-text" }));
const summary = h("span", { class: "muted small summary" });
const notice = h("div", { class: "notice", role: "alert", hidden: true });
const nothing = h("div", { class: "nothing" }, h("p", { class: "empty" }, "Pick a work order, or start a new one."));
const missing = h("p", { class: "empty", hidden: true });
const detailView = h("div", { class: "detail", hidden: true }, header.element, approvals.element, tabs.element, tabs.panels, composer.element);
const mainView = h("main", { class: "main", id: "main" }, nothing, missing, detailView);
const frame = h(
  "div",
  { class: "frame", hidden: true },
  h(
    "header",
    { class: "topbar" },
    h("a", { class: "brand", href: "#/" }, h("span", { class: "brand-mark", "aria-hidden": "true" }), "agentstream"),
    pill,
    summary,
    h("button", { type: "button", class: "primary new", onclick: () => dialog.open() }, "New", h("span", { class: "new-long" }, " work order")),
  ),
  orders.element,
  mainView,
  notice,
);
document.body.append(frame, loginView.element, dialog.element);

// --- drawing -------------------------------------------------------------------------------------------------------------

function schedule() {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    draw();
  });
}

/**
 * After a batch of messages: draw, unless drawing is what takes the time. While a backlog is taken, or where a frame with a drawing
 * in it takes long (no graphics processor, a busy machine), most frames draw nothing, so that none of them is missed for long.
 */
function batch(behind) {
  const since = performance.now() - drawn;
  const pause = behind ? CATCHING_UP_PAUSE : Math.min(CATCHING_UP_PAUSE, (drawCost - 1000 / 60) * 2);
  if (since >= pause) draw();
  else later ??= setTimeout(() => {
    later = null;
    schedule();
  }, pause - since);
}

function draw() {
  drawn = performance.now();
  requestAnimationFrame(() => (drawCost = performance.now() - drawn));
  const now = Date.now() + skew;
  const { detail } = state;
  setText(pill.lastChild, STATES[connectionState]);
  setAttribute(pill, "data-state", connectionState);
  const drawList = `${state.ordersVersion} ${Math.floor(now / 1000)} ${detail?.id} ${list.loaded} ${list.cursor}`;
  if (drawList !== draw.list) {
    draw.list = drawList;
    orders.render(state, { now, selected: detail?.id, hasMore: Boolean(list.cursor), loaded: list.loaded });
    counts();
  }
  setAttribute(frame, "data-view", detail ? "detail" : "list");
  nothing.hidden = Boolean(detail);
  missing.hidden = !detail?.missing;
  detailView.hidden = !detail || Boolean(detail.missing) || !detail.order;
  if (detailView.hidden) {
    if (detail?.missing) setText(missing, detail.missing);
    return;
  }
  const run = currentRun();
  header.render(detail, run, now, agents);
  approvals.render(state, detail, run, now);
  composer.render(detail, run, agents.find((agent) => agent.agentType === (run?.agentType || detail.order.request.agentType))?.capabilities);
  tabs.count("tools", run?.calls.length ?? 0, compact(run?.toolCalls ?? 0));
  tabs.count("files", run?.files.size ?? 0, compact(run?.files.size ?? 0));
  tabs.count("errors", run?.errorCount ?? 0, compact(run?.errorCount ?? 0), "bad");
  if (tabs.selected === "activity") activity.render(run ?? detail.prologue, !detail.replaying);
  else ({ tools, output, files, errors })[tabs.selected].render(run);
}

function counts() {
  let running = 0;
  let queued = 0;
  for (const order of state.orders.values()) {
    if (order.status === "running") running += 1;
    else if (order.status === "queued") queued += 1;
  }
  setText(summary, [running && `${running} running`, queued && `${queued} queued`].filter(Boolean).join(" · "));
  document.title = `${state.approvals.size ? "! " : ""}${running ? `(${running}) ` : ""}agentstream`;
}

function currentRun() {
  const { detail } = state;
  return detail?.runs.get(pickedRun) ?? detail?.runs.get(detail.runIds.at(-1)) ?? null;
}

let noticeTimer;
function say(message) {
  notice.hidden = false;
  setText(notice, message);
  clearTimeout(noticeTimer);
  noticeTimer = setTimeout(() => (notice.hidden = true), 8000);
}

async function act(action) {
  try {
    return await action();
  } catch (error) {
    say(error.message);
    return null;
  }
}

// --- the daemon ----------------------------------------------------------------------------------------------------------

const NOTHING = { includeToolCalls: false, includeToolResults: false, includeOutput: false, includeFileChanges: false, includeThinking: false };
const EVERYTHING = { includeDeltas: true, includeRaw: true };

function subscriptions() {
  const wanted = [{ type: "subscribe", workOrderId: "*", filters: NOTHING }];
  if (state.detail) wanted.push(detailSubscription());
  return wanted;
}

function detailSubscription() {
  const { detail } = state;
  subscribed += 1;
  Object.assign(detail, { subscription: `open-${subscribed}`, confirmed: false, replaying: true });
  const message = { type: "subscribe", id: detail.subscription, workOrderId: detail.id, filters: EVERYTHING };
  if (!detail.lastSeq) return { ...message, replayCount: REPLAY };
  return { ...message, sinceSeq: detail.lastSeq, epoch: epoch ?? undefined };
}

function received(message) {
  if (message.type === "error") {
    if (message.code !== "UNAUTHORIZED") say(message.message);
    return;
  }
  if (message.type === "subscription_confirmed") {
    skew = Date.parse(message.timestamp) - Date.now();
    if (epoch && epoch !== message.epoch) {
      // Another journal: the list belongs to the old one.
      state.orders.clear();
      list = { cursor: null, loaded: false };
    }
    epoch = message.epoch;
    if (message.workOrderId === "*") refresh();
  }
  const before = state.detail;
  store.reduce(state, message, activity.reading);
  if (state.detail !== before) loadDetail(state.detail);
  if (message.type === "replay_complete") act(loadApprovals);
}

/** After each (re)connect: what happened to the list meanwhile, and which questions are open. */
function refresh() {
  act(() => loadList(false));
  act(loadApprovals);
  if (!agents.length) act(loadAgents);
}

async function loadApprovals() {
  const news = store.askApprovals(state);
  let items = null;
  try {
    ({ items } = await api.get("/approvals"));
  } finally {
    store.putApprovals(state, news, items);
  }
  schedule();
}

async function loadAgents() {
  agents = (await api.get("/agents")).items;
  schedule();
  return agents;
}

async function loadList(more) {
  const cursor = more && list.cursor ? `&cursor=${segment(list.cursor)}` : "";
  const data = await api.get(`/work-orders?limit=${LIST_PAGE}${cursor}`);
  for (const order of data.items) store.putOrder(state, order);
  if (more || !list.loaded) list.cursor = data.cursor ?? null;
  list.loaded = true;
  schedule();
}

async function loadDetail(detail) {
  try {
    const order = await api.get(`/work-orders/${segment(detail.id)}`);
    detail.order = order;
    store.putOrder(state, order);
    const runs = await api.get(`/runs?workOrderId=${segment(detail.id)}`);
    for (const run of runs.items) store.putRun(detail, run);
  } catch (error) {
    if (error instanceof ApiError && error.status === 404) detail.missing = "There is no such work order.";
    else say(error.message);
  }
  schedule();
}

function open(id) {
  if (state.detail?.id === id) return;
  if (state.detail) connection.send({ type: "unsubscribe", workOrderId: state.detail.id });
  pickedRun = null;
  if (id === null) state.detail = null;
  else {
    const detail = store.openDetail(state, id);
    connection.send(detailSubscription());
    loadDetail(detail);
  }
  draw();
}

async function fetchCall(run, call) {
  const whole = await api.get(`/runs/${segment(run.id)}/tool-calls/${segment(call.id)}`);
  return { input: whole.input, content: whole.result?.content ?? null };
}

// --- the beginning -------------------------------------------------------------------------------------------------------

/** The token from the page's address, which then forgets it; else the one that this tab was given before. */
function takeToken() {
  const query = new URLSearchParams(location.search);
  const hash = /^#token=(.+)$/.exec(location.hash);
  const given = query.get("token") ?? (hash ? decodeURIComponent(hash[1]) : null);
  if (given === null) return sessionStorage.getItem(TOKEN_KEY);
  query.delete("token");
  const rest = query.toString();
  history.replaceState(null, "", `${location.pathname}${rest ? `?${rest}` : ""}${hash ? "" : location.hash}`);
  remember(given);
  return given;
}

function remember(value) {
  sessionStorage.setItem(TOKEN_KEY, value);
}

function login(message) {
  sessionStorage.removeItem(TOKEN_KEY);
  token = null;
  frame.hidden = true;
  loginView.show(message);
}

function route() {
  const match = /^#\/work-orders\/(.+)$/.exec(location.hash);
  open(match ? decodeURIComponent(match[1]) : null);
}

function start() {
  loginView.element.hidden = true;
  frame.hidden = false;
  route();
  connection.start();
}

addEventListener("hashchange", route);
setInterval(schedule, 1000);

try {
  await api.get("/work-orders?limit=1");
  start();
} catch (error) {
  if (error.status === 401 || error.status === 403) login(token === null ? "" : "The daemon refused this token.");
  // Not there yet, or not well: the connection keeps trying.
  else start();
}
