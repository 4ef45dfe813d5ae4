/**
 * The rows of one run's activity: a window over the journal that is kept in memory. Pure.
 *
 * A row is small (what one line shows); the whole event is fetched when somebody asks for it. Live rows are added at the end,
 * older ones at the head when the reader scrolls back. Both are bounded: while the end is followed the head is dropped; while
 * somebody reads further up the end is dropped instead, and the window is `detached` from the live end until they go back.
 */

// At about 300 bytes a row this is 9 MB, and an hour of a busy agent.
export const MAX_ROWS = 30_000;
// Dropped at once, so that dropping is rare.
const CHUNK = 3000;

export class Log {
  constructor() {
    this.rows = [];
    /** Number of the first row since the beginning; falls when older rows are added. */
    this.base = 0;
    /** There is nothing older than the first row. */
    this.complete = true;
    /** The live end is not in the window; `missed` rows came meanwhile. */
    this.detached = false;
    this.missed = 0;
    this.version = 0;
  }

  get length() {
    return this.rows.length;
  }

  at(index) {
    return this.rows[index];
  }

  key(row) {
    return row.key;
  }

  /** Add a live row. `reading`: somebody looks at a place further up. */
  append(row, reading) {
    this.version += 1;
    if (this.detached) {
      this.missed += 1;
      return;
    }
    this.rows.push(row);
    if (this.rows.length <= MAX_ROWS + CHUNK) return;
    if (reading) {
      this.detached = true;
      this.missed = 0;
    } else this.shrink(MAX_ROWS);
  }

  /** Add older rows at the head. */
  prepend(rows, complete) {
    this.version += 1;
    this.complete = complete;
    this.rows = rows.concat(this.rows);
    this.base -= rows.length;
    if (this.rows.length > 2 * MAX_ROWS) {
      this.rows.length = 2 * MAX_ROWS;
      this.detached = true;
    }
  }

  /** Begin again with the newest rows. */
  reattach(rows, complete) {
    this.version += 1;
    this.rows = rows;
    this.complete = complete;
    this.detached = false;
    this.missed = 0;
  }

  /** Keep only the last `count` rows. */
  shrink(count) {
    const drop = this.rows.length - count;
    if (drop <= 0) return;
    this.rows.splice(0, drop);
    this.base += drop;
    this.complete = false;
    this.version += 1;
  }

  /** The `seq` of the first row, before which older ones are looked for. */
  get firstSeq() {
    return this.rows.find((row) => row.seq)?.seq ?? null;
  }
}
