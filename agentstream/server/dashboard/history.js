/** Older activity, from the journal: what is no longer in memory, or never was. */

import { ApiError, segment } from "./api.js";
import { rowOf } from "./run.js";

// Events fetched at once.
const PAGE = 1000;

export class History {
  constructor(api, state) {
    this._api = api;
    this._state = state;
  }

  /** One whole event of the open work order. */
  async event(seq) {
    const { items } = await this._page(seq - 1, 1);
    if (items[0]?.seq !== seq) throw new ApiError(404, "NOT_FOUND", "The journal no longer has this event.");
    return items[0];
  }

  /** Rows before the first one of a run's activity are added to it. */
  async older(run) {
    const { detail } = this._state;
    const { rows, complete } = await this._before(run, run.log.firstSeq ?? detail.lastSeq + 1);
    run.log.prepend(rows, complete);
  }

  /** A run's activity begins again with the newest rows. */
  async latest(run) {
    const { rows, complete } = await this._before(run, this._state.detail.lastSeq + 1);
    run.log.reattach(rows, complete);
  }

  /** `{items, lastSeq}`: everything of the work order up to `lastSeq` is in `items`, which may be empty. */
  _page(sinceSeq, limit) {
    const { id } = this._state.detail;
    return this._api.get(`/work-orders/${segment(id)}/events?sinceSeq=${sinceSeq}&limit=${limit}`);
  }

  /**
   * Rows of `run` before `seq`. `seq` counts over all work orders, so how far back a page of this run reaches isn't known: the window
   * is doubled until it holds something or reaches the beginning.
   */
  async _before(run, seq) {
    const { detail } = this._state;
    const isFirst = detail.runIds[0] === run.id;
    for (let reach = PAGE; ; reach *= 2) {
      const from = Math.max(0, seq - 1 - reach);
      const rows = [];
      // Events without a run belong to the run before them; before the first run, to that.
      let owner = from === 0 && isFirst ? run.id : null;
      for (let after = from; after < seq - 1; ) {
        const page = await this._page(after, PAGE);
        for (const event of page.items) {
          owner = event.runId ?? (isFirst && event.type === "work_order_created" ? run.id : owner);
          const row = event.seq < seq && owner === run.id ? rowOf(event, run, detail.order?.workspace) : null;
          if (row) rows.push(row);
        }
        if (page.lastSeq <= after) break;
        after = page.lastSeq;
      }
      if (rows.length || from === 0) return { rows, complete: from === 0 || rows[0].type === (isFirst ? "work_order_created" : "run_started") };
    }
  }
}
