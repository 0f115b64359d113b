"""What the centre has of every device: plans a batch so that nothing counts twice, and writes the receipts once it is committed.

The order is the whole point: `plan`, then the store commits, then `receipts`. When the commit fails, `forget`: what is in memory
may be ahead of the database then, and is read again from there.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from broker.ingest import Accepted, Decision, Greeted, Rejected, Replied, Reported
from broker.store import Batch, DeviceChange, OutcomeKey, Store, StreamChange, StreamKey
from edge.contract import codec
from edge.contract.errors import ContractError
from edge.contract.messages import Hello, Quarantined, Receipt
from edge.contract.seqset import SeqSet

STREAMS_IN_MEMORY = 10_000
"""Streams kept in memory; a device that makes up epochs must not fill it."""

_MANY_RANGES = 128
_FEW_RANGES = 48
_QUARANTINED_EACH = 32
"""Quarantined seqs in one receipt; with `_FEW_RANGES` ranges of the longest numbers it stays below the contract's 8 KiB."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A batch, and whom to tell what after its commit."""

    batch: Batch
    quarantined: dict[StreamKey, list[Quarantined]] = field(default_factory=dict)
    hellos: list[Hello] = field(default_factory=list)
    touched: defaultdict[StreamKey, set[int]] = field(default_factory=lambda: defaultdict(set))


class Ledger:
    """The seqs of every stream, loaded from the store when a stream is first touched."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._streams: OrderedDict[StreamKey, SeqSet] = OrderedDict()

    def plan(self, decisions: Iterable[Decision]) -> Plan:
        """Sort `decisions` into one batch: new outcomes once, repeats dropped, contradictions into quarantine."""
        plan = Plan(Batch())
        repeats: list[Accepted] = []
        spoilt: set[OutcomeKey] = set()  # in quarantine now, and delivered before in whatever state
        fresh: dict[OutcomeKey, Accepted] = {}
        for decision in decisions:
            if isinstance(decision, Accepted):
                outcome = decision.outcome
                stream = (outcome.device, outcome.epoch)
                if self._touch(plan, stream, outcome.seq):
                    fresh[_key(decision)] = decision
                else:
                    repeats.append(decision)
                self._saw(plan, outcome.device, decision.received_ms)
            elif isinstance(decision, Rejected):
                spoilt |= self._reject(plan, decision)
            elif isinstance(decision, Greeted):
                self._greet(plan, decision)
            elif isinstance(decision, Reported):
                self._report(plan, decision)
            elif isinstance(decision, Replied):
                self._saw(plan, decision.reply.device, decision.received_ms)
        self._compare(plan, repeats, spoilt, fresh)
        plan.batch.outcomes.extend(fresh.values())
        for stream, change in plan.batch.streams.items():
            change.through = self._streams[stream].through
        return plan

    def receipts(self, plan: Plan) -> Iterator[Receipt]:
        """Yield what the devices may now forget. Only to be called after the store has committed `plan.batch`.

        A stream can have more ranges than a receipt has room for. An answer then begins where the device still waits; what came in
        this batch is named in any case. So everything is receipted in the end, at the latest when it is sent again.
        """
        told: dict[StreamKey, SeqSet] = {}
        for hello in plan.hellos:
            stream = (hello.device, hello.epoch)
            answer = self._answer(stream, hello)
            told[stream] = SeqSet(answer.through, answer.plus)
            yield answer
        for stream in plan.batch.streams:
            odd = plan.quarantined.get(stream, [])
            if stream in told and not odd and all(seq in told[stream] for seq in plan.touched[stream]):
                continue
            yield from self._news(stream, odd, plan.touched[stream])
        while len(self._streams) > STREAMS_IN_MEMORY:
            self._streams.popitem(last=False)

    def forget(self) -> None:
        """Drop what is in memory; the store is asked again."""
        self._streams.clear()

    def _answer(self, stream: StreamKey, hello: Hello) -> Receipt:
        odd = self._store.quarantined(stream, hello.lowest_unreceipted, _QUARANTINED_EACH)
        seqs = self._streams[stream]
        plus, within = seqs.window(hello.lowest_unreceipted, _FEW_RANGES if odd else _MANY_RANGES)
        return Receipt(
            device=stream[0],
            epoch=stream[1],
            through=seqs.through,
            plus=plus,
            within=within,
            quarantined=odd,
            answers=hello.nonce,
        )

    def _news(self, stream: StreamKey, odd: list[Quarantined], touched: set[int]) -> Iterator[Receipt]:
        """Yield as many receipts as it takes to name the ranges of `touched` (all ranges if there are few), and `odd`."""
        seqs = self._streams[stream]
        most = _FEW_RANGES if odd else _MANY_RANGES
        if seqs.range_count <= most:
            ranges = seqs.ranges
        else:
            ranges = sorted({found for seq in touched if (found := seqs.range_of(seq)) is not None})
        for page in range(max(-(-len(ranges) // most), -(-len(odd) // _QUARANTINED_EACH), 1)):
            yield Receipt(
                device=stream[0],
                epoch=stream[1],
                through=seqs.through,
                plus=ranges[page * most : (page + 1) * most],
                quarantined=odd[page * _QUARANTINED_EACH : (page + 1) * _QUARANTINED_EACH],
            )

    def _touch(self, plan: Plan, stream: StreamKey, seq: int) -> bool:
        """Note that the stream needs a receipt; return whether `seq` was new."""
        change = self._change(plan, stream)
        change.last_seq = max(change.last_seq, seq)
        plan.touched[stream].add(seq)
        return self._streams[stream].add(seq)

    def _change(self, plan: Plan, stream: StreamKey) -> StreamChange:
        change = plan.batch.streams.get(stream)
        if change is None:
            if stream not in self._streams:
                self._streams[stream] = self._store.delivered(stream)
            self._streams.move_to_end(stream)
            change = plan.batch.streams[stream] = StreamChange(0)
        return change

    def _reject(self, plan: Plan, odd: Rejected) -> set[OutcomeKey]:
        plan.batch.rejected.append(odd)
        if odd.device is not None:
            self._saw(plan, odd.device, odd.received_ms)
            if odd.delivered and odd.epoch is not None and odd.seq is not None:
                stream = (odd.device, odd.epoch)
                plan.quarantined.setdefault(stream, []).append(Quarantined(odd.seq, odd.reason))
                if not self._touch(plan, stream, odd.seq):
                    return {(*stream, odd.seq)}
        return set()

    def _greet(self, plan: Plan, greeted: Greeted) -> None:
        hello = greeted.hello
        change = self._change(plan, (hello.device, hello.epoch))
        change.last_seq = max(change.last_seq, hello.last_seq)
        for past in hello.closed:
            if past.epoch != hello.epoch:
                closed = self._change(plan, (hello.device, past.epoch))
                closed.last_seq, closed.closed = max(closed.last_seq, past.last_seq), True
        plan.hellos.append(hello)
        self._saw(plan, hello.device, greeted.received_ms)

    def _report(self, plan: Plan, reported: Reported) -> None:
        device = reported.status.device
        # A last will, or a message that the broker kept, tells how the device is but is not a sign of life.
        alive = not reported.retained and reported.status.state == "online"
        self._saw(plan, device, reported.received_ms if alive else 0)
        plan.batch.devices[device].report = reported

    def _saw(self, plan: Plan, device: str, at_ms: int) -> None:
        news = plan.batch.devices.get(device)
        if news is None:
            plan.batch.devices[device] = DeviceChange(at_ms)
        else:
            news.seen_ms = max(news.seen_ms, at_ms)

    def _compare(self, plan: Plan, repeats: list[Accepted], spoilt: set[OutcomeKey], fresh: dict[OutcomeKey, Accepted]) -> None:
        """Tell a repeat from a contradiction; a seq that was only in quarantine so far is taken in after all."""
        keys = ({_key(again) for again in repeats} | spoilt) - fresh.keys()
        stored = self._store.payloads(keys) if keys else {}
        for again in repeats:
            key = _key(again)
            first = fresh[key].payload if key in fresh else stored.get(key)
            if first is None:
                fresh[key] = again
            elif first != again.payload and not _same_content(first, again):
                plan.batch.rejected.append(_conflict(again))
        for stream, odd in plan.quarantined.items():
            # What is stored well is not to be called quarantined because a spoilt copy came too.
            odd[:] = [one for one in odd if (*stream, one.seq) not in stored and (*stream, one.seq) not in fresh]


def _key(accepted: Accepted) -> OutcomeKey:
    return (accepted.outcome.device, accepted.outcome.epoch, accepted.outcome.seq)


def _same_content(first: bytes, again: Accepted) -> bool:
    """Whether only spelling differs: the order of fields, spaces, or fields that this software does not know."""
    try:
        return codec.decode_outcome(first) == again.outcome
    except ContractError:
        return False


def _conflict(again: Accepted) -> Rejected:
    outcome = again.outcome
    detail = "another outcome was stored under this seq before; the first one counts"
    return Rejected("conflict", detail, again.topic, again.payload, again.received_ms, outcome.device, outcome.epoch, outcome.seq)
