"""What one connection subscribed to, and how far each subscription has come: the decisions of replay and live. Pure.

A connection's subscriptions are in one of two places:

- **in the group**: they follow the broadcaster. While the connection is caught up (``behind is None``) each batch is decided by
  `Course.select`. When it can't keep up, its backlog is dropped and the whole group is *behind*: nothing is taken live
  any more, and pages are read from the journal after the group's cursor, until one reaches the head.
- **replaying**: a subscription that asked for history reads pages after its own cursor. When a page reaches the head, it joins
  the group, wherever that is.

Both end the same way: `Course.take` is called with a page and the head *of that moment*, and decides "joined" without letting
anything else run; what is published later comes live. So nothing is missing. And nothing comes twice, because each
place remembers up to which ``seq`` it was served (``after``), which also covers a batch that was on its way while somebody
joined.

Who decides about a record when both ``"*"`` and its work order are subscribed to? Each subscription is responsible for what
has a higher ``seq`` than its ``begin``, and the specific one goes before ``"*"``. It begins where ``"*"`` is, or with its own
replay. When it ends while ``"*"`` is there, it stays as a *remainder*, under the wishes of ``"*"``, until ``"*"`` has passed the
point where it is: else its unsent events would be a hole in ``"*"``, or its sent ones would come again.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cache

import attrs

from agentstream.agents.base import Moment
from agentstream.broadcast.batch import ALL, CREATED, Batch, Chunk, Wish
from agentstream.broadcast.limiter import Limiter
from agentstream.journal.base import Record
from agentstream.model.events import EVENT_CLASSES
from agentstream.model.messages import EventsSkipped, Filters, Gap, ReplayComplete
from agentstream.model.wire import type_of

Notice = ReplayComplete | Gap | EventsSkipped


@cache
def unwanted_types(filters: Filters) -> frozenset[str]:
    """The event types that these filters keep out, so that a decision is one look into a set."""
    return frozenset(type_of(cls) for cls in EVENT_CLASSES if not all(getattr(filters, name) for name in cls.filters))


@attrs.define(eq=False)
class Subscription:
    """One work order (or `ALL`) on one connection."""

    work_order_id: str
    filters: Filters
    #: Responsible for records with a higher ``seq``.
    begin: int
    #: Done with everything from ``begin`` up to here; while replaying that is its cursor.
    after: int
    replaying: bool
    #: What had gone out when this one came, by ``"*"`` or an earlier one: ``sent_after < seq <= sent_up_to``. Its replay sends it
    #: again, since the client asked for that; a remainder need not.
    sent_after: int = 0
    sent_up_to: int = 0
    #: Trimmed records up to here were told as a gap.
    told: int = 0
    #: The client waits for `ReplayComplete`.
    announce: bool = False
    #: Ended by the client, kept for ``"*"``.
    remainder: bool = False
    limiter: Limiter | None = None
    unwanted: frozenset[str] = frozenset()

    @property
    def reached(self) -> int:
        """Up to where nothing is missing of what has gone out since ``begin``."""
        return max(self.after, self.sent_up_to) if self.sent_after <= self.after else self.after


@attrs.frozen
class Read:
    """A page to be read from the journal: ``after < seq <= up_to``, of these work orders (None: of all)."""

    #: Who replays; None: the group catches up.
    subscription: Subscription | None
    after: int
    up_to: int
    work_order_ids: tuple[str, ...] | None
    #: Whose trimming matters for the page, `ALL` among them.
    subjects: tuple[str, ...]


class Course:
    """The subscriptions of one connection. ``head`` is always the highest ``seq`` that the broadcaster has begun to deliver."""

    def __init__(self) -> None:
        self._subscriptions: dict[str, Subscription] = {}
        #: Everything up to here was handed over, as far as the group wants it; None: caught up.
        self._behind: int | None = None
        #: What was reached when the group last caught up.
        self._after = 0
        #: The end of the last batch that came here.
        self.served = 0
        #: Who has pages to read, in turn: a work order id for a replay, None for the group.
        self._turns: list[str | None] = []
        #: Subscriptions that need no look at single records: what they want, of batches after which ``seq``.
        self.ready: dict[str, tuple[Wish, int]] = {}

    # --- what is asked for ---------------------------------------------------------------------------------------

    @property
    def behind(self) -> bool:
        """Whether the group catches up from the journal."""
        return self._behind is not None

    @property
    def catching_up(self) -> bool:
        """Whether anything has to be read from the journal: the group, or a replay."""
        return bool(self._turns)

    def __len__(self) -> int:
        return len(self._subscriptions)

    def subscriptions(self) -> list[Subscription]:
        """What the client knows as its subscriptions."""
        return [one for one in self._subscriptions.values() if not one.remainder]

    def ids(self) -> frozenset[str]:
        """Whose records concern this connection; remainders included."""
        return frozenset(self._subscriptions)

    def subscribe(
        self,
        work_order_id: str,
        filters: Filters,
        *,
        head: int,
        since: int | None = None,
        limiter: Limiter | None = None,
    ) -> None:
        """Begin after ``head``, or with a replay of what came after ``since``. What was selected before must not be dropped now.

        A work order beside ``"*"`` begins where ``"*"`` is, and takes its events from there. Subscribing again replaces filters
        and limit and keeps the place; with ``since`` it begins anew from there.
        """
        old = self._subscriptions.get(work_order_id)
        star = self._subscriptions.get(ALL)
        if work_order_id == ALL and (old is None or since is not None):
            # What ``"*"`` had sent, or left to remainders, counts no more: it begins anew.
            for one in self._remainders():
                self._drop(one)
            for one in self._subscriptions.values():
                one.sent_up_to = 0
        if since is not None:
            new = self._replay(work_order_id, filters, since, old, star if work_order_id != ALL else None)
        elif old is not None:
            new = old
            new.filters, new.remainder = filters, False
        elif star is not None:
            new = Subscription(work_order_id, filters, begin=star.begin, after=star.after, replaying=star.replaying)
        else:
            new = Subscription(work_order_id, filters, begin=head, after=head, replaying=False)
        new.unwanted = unwanted_types(filters)
        new.limiter = limiter
        self._subscriptions[work_order_id] = new
        if new.replaying and work_order_id not in self._turns:
            self._turns.append(work_order_id)
        self._changed()

    def _replay(
        self, work_order_id: str, filters: Filters, since: int, old: Subscription | None, star: Subscription | None
    ) -> Subscription:
        begin = after = since
        sent_after = sent_up_to = 0
        if star is not None and old is None:
            # What ``"*"`` has not sent yet comes from here too, if the client asks for less.
            begin = after = min(since, self._place(star))
            sent_after, sent_up_to = star.begin, self._place(star)
        elif star is not None and old is not None:
            begin, after = min(since, old.begin), min(since, self._place(old))
            if since >= old.begin:
                sent_after, sent_up_to = old.begin, self._place(old)
            elif self._place(star) >= old.begin:
                sent_after, sent_up_to = min(star.begin, old.begin), self._place(old)
            else:
                # Between the two is what nobody has sent yet.
                sent_after, sent_up_to = star.begin, self._place(star)
        return Subscription(
            work_order_id,
            filters,
            begin=begin,
            after=after,
            replaying=True,
            announce=True,
            sent_after=sent_after,
            sent_up_to=sent_up_to,
        )

    def unsubscribe(self, work_order_id: str) -> bool:
        """End a subscription; False when there was none. What was selected before must not be dropped now."""
        ended = self._subscriptions.get(work_order_id)
        if ended is None or ended.remainder:
            return False
        star = self._subscriptions.get(ALL)
        if work_order_id == ALL:
            for one in [ended, *self._remainders()]:
                self._drop(one)
        elif star is not None:
            ended.remainder, ended.announce, ended.limiter = True, False, None
            # Of its replay, ``"*"`` needs neither what it did not ask for nor what went out before.
            if star.begin > ended.after:
                ended.begin = ended.after = star.begin
            ended.after = ended.reached
        else:
            self._drop(ended)
        self._changed()
        return True

    def _drop(self, ended: Subscription) -> None:
        del self._subscriptions[ended.work_order_id]
        if ended.replaying:
            self._turns.remove(ended.work_order_id)

    def _place(self, one: Subscription) -> int:
        """Up to where all of its records have gone out. Not the head: a batch may be on its way to this connection."""
        if one.replaying:
            return one.reached
        return max(one.after, max(self._after, self.served) if self._behind is None else self._behind)

    def _remainders(self) -> list[Subscription]:
        return [one for one in self._subscriptions.values() if one.remainder]

    def _changed(self) -> None:
        self.ready = {}
        if self._behind is not None or (ALL in self._subscriptions and len(self._subscriptions) > 1):
            return
        for key, one in self._subscriptions.items():
            if not (one.replaying or one.limiter is not None):
                self.ready[key] = (key, one.unwanted), max(one.after, self._after)

    # --- live ------------------------------------------------------------------------------------------------------

    def select(self, batch: Batch, only: str | None) -> Chunk | None:
        """What of a batch goes out now, where all of it is decided alike and the bytes are shared with others.

        ``only``: the one of this connection's subscriptions that the batch concerns; None when it concerns several. Raises `Mixed`
        where records must be looked at one by one: then ask `choose`.
        """
        ready = self.ready.get(only or "")
        if ready is not None and batch.first > ready[1]:
            self.served = batch.last or self.served
            return batch.chunk(ready[0])
        if self._behind is not None:
            return None
        if not self._subscriptions and batch.first > self._after:
            self.served = batch.last or self.served
            return batch.announcements()
        raise Mixed

    def choose(self, batch: Batch, at: Moment) -> list[Record | Notice]:
        """What of a batch goes out now, with what has to be told in between."""
        if self._behind is not None:
            return []
        self._settle(batch.first)
        self.served = batch.last or self.served
        out: list[Record | Notice] = []
        for record in batch.records:
            if record.seq is None or record.seq > self._after:
                self._decide(record, at, out)
        return out

    def _settle(self, first: float) -> None:
        """Let go of remainders that ``"*"`` has caught up with: not before a batch that lies wholly after them."""
        star = self._subscriptions.get(ALL)
        if first == math.inf or star is None or star.replaying or first <= max(star.after, self._after):
            return
        for one in self._remainders():
            if not one.replaying and one.after < first:
                self._drop(one)
                self._changed()

    def _owner(self, record: Record) -> Subscription | None:
        one = self._subscriptions.get(record.work_order_id)
        star = self._subscriptions.get(ALL)
        if record.seq is None:
            return one or star
        if one is not None and record.seq > one.begin:
            return one
        if star is not None and record.seq > star.begin:
            return star
        return None

    def _decide(self, record: Record, at: Moment, out: list[Record | Notice]) -> None:
        """One record for the group, live or from a page."""
        one = self._owner(record)
        if one is None:
            if record.type == CREATED:
                out.append(record)
        elif not one.replaying and (record.seq is None or record.seq > one.after):
            wishes = self._subscriptions[ALL] if one.remainder else one
            if record.type in wishes.unwanted:
                return
            if wishes.limiter is not None:
                if not wishes.limiter.admits(record, at.monotonic):
                    return
                skipped = wishes.limiter.take_skipped(wishes.work_order_id, record, at)
                if skipped is not None:
                    out.append(skipped)
            out.append(record)

    def fall_behind(self, cursor: int) -> None:
        """What was to go out after ``cursor`` was dropped: the group catches up from there."""
        if self._behind is not None:
            raise AssertionError("a group that is behind has nothing live to lose")
        self._behind = cursor
        self._turns.append(None)
        self._changed()

    # --- from the journal ------------------------------------------------------------------------------------------

    def next_read(self, head: int, *, announced_from: int = 0) -> Read | None:
        """The next page that is needed, replays and the group in turn; None: nothing, all is live.

        ``announced_from``: the ``seq`` from which on the caller can give `take` every `CREATED` record. Where the group needs
        earlier ones, the page is of all work orders.
        """
        if not self._turns:
            return None
        turn = self._turns.pop(0)
        self._turns.append(turn)
        if turn is not None:
            one = self._subscriptions[turn]
            return Read(one, one.after, head, None if turn == ALL else (turn,), (turn,))
        assert self._behind is not None
        group = tuple(key for key, one in self._subscriptions.items() if not one.replaying)
        wide = ALL in group or self._behind + 1 < announced_from
        return Read(None, self._behind, head, None if wide else group, group)

    def take(
        self,
        read: Read,
        page: Sequence[Record],
        *,
        complete: bool,
        head: int,
        oldest: Mapping[str, int],
        at: Moment,
        announced: Iterable[Record] = (),
    ) -> list[Record | Notice]:
        """What of a page goes out, and the cursor moves on; nothing when the page isn't needed any more.

        ``complete``: the page holds all up to ``read.up_to``; otherwise it ends with its last record. ``oldest``: for each of
        ``read.subjects`` what `Journal.oldest` says, asked after the page was read. ``announced``: `CREATED` records.
        """
        end = read.up_to if complete or not page else page[-1].seq or read.up_to
        if read.subscription is None:
            return self._take_for_group(read, page, end, head, oldest, at, announced)
        one = read.subscription
        if self._subscriptions.get(one.work_order_id) is not one or one.after != read.after:
            return []
        out: list[Record | Notice] = []
        self._tell_gap(one, read.after, oldest, at, out)
        unwanted = self._subscriptions[ALL].unwanted if one.remainder else one.unwanted
        out.extend(record for record in page if record.type not in unwanted and self._owner(record) is one)
        one.after = max(end, one.after)
        if one.after >= head:
            one.replaying = False
            self._turns.remove(one.work_order_id)
            if one.announce:
                one.announce = False
                out.append(ReplayComplete(timestamp=at.wall, work_order_id=one.work_order_id, seq=one.after))
            self._changed()
        return out

    def _take_for_group(
        self,
        read: Read,
        page: Sequence[Record],
        end: int,
        head: int,
        oldest: Mapping[str, int],
        at: Moment,
        announced: Iterable[Record],
    ) -> list[Record | Notice]:
        if self._behind != read.after:
            return []
        out: list[Record | Notice] = []
        for key in read.subjects:
            one = self._subscriptions.get(key)
            if one is not None and not one.replaying:
                self._tell_gap(one, max(read.after, one.after), oldest, at, out)
        if read.work_order_ids is not None:
            known = set(read.work_order_ids)
            others = [r for r in announced if r.seq is not None and read.after < r.seq <= end]
            page = sorted(
                [*page, *(r for r in others if r.work_order_id not in known)], key=lambda record: record.seq or 0
            )
        for record in page:
            self._decide(record, at, out)
        self._behind = end
        if end >= head:
            self._behind = None
            self._after = end
            self._turns.remove(None)
            self._changed()
        return out

    def _tell_gap(
        self, one: Subscription, after: int, oldest: Mapping[str, int], at: Moment, out: list[Record | Notice]
    ) -> None:
        seen = max(after, one.told)
        there = oldest.get(one.work_order_id, 1)
        if seen + 1 < there and not one.remainder:
            one.told = there - 1
            out.append(
                Gap(
                    timestamp=at.wall,
                    work_order_id=one.work_order_id,
                    from_seq=seen + 1,
                    to_seq=there - 1,
                    reason="retention",
                )
            )


class Mixed(Exception):
    """`Course.select` can't decide for the batch as a whole."""
