"""The pgoutput stream, protocol version 1, as values: bytes in, whole transactions and logical messages out.

Invariant: nothing here does I/O or looks at a catalog. What a row means is decided by the Relation message that the
server sent before it, so a column added while the stream runs is seen exactly where it happened. A transaction is handed
out when its Commit message has arrived and never in parts.

Formats: PostgreSQL documentation, "Logical Replication Message Formats" and "Streaming Replication Protocol".
LSNs are integers (bytes of WAL), times are microseconds since 1970.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from struct import Struct
from typing import Any, Final, NamedTuple

Table = tuple[str, str]
"""(schema, name). A table of `pg_catalog` has the schema "pg_catalog"."""

Convert = Callable[[bytes], Any]
"""Makes a value from the text form that the server sent, UTF-8 bytes."""

HEADER: Final = 25
"""Bytes of an XLogData message ('w', start, end, time) before the pgoutput message begins."""

EPOCH_2000: Final = 946_684_800_000_000
"""2000-01-01 in microseconds since 1970: the server counts from the former."""

_U16: Final = Struct(">H").unpack_from
_U32: Final = Struct(">I").unpack_from
_U64: Final = Struct(">Q").unpack_from
_BEGIN: Final = Struct(">QqI").unpack_from
_COMMIT: Final = Struct(">BQQq").unpack_from
_TEXT, _NULL, _UNCHANGED = b"tnu"
_NEW, _KEY, _OLD = b"NKO"


class DecodeError(Exception):
    """The stream does not say what it must; the message names the object and what to do."""


class Unchanged:
    """The type of UNCHANGED, the value of a large column that an UPDATE did not touch: the server does not send it."""

    def __repr__(self) -> str:
        return "UNCHANGED"


UNCHANGED: Final = Unchanged()


def text(value: bytes) -> str:
    """A column as str."""
    return value.decode()


def raw(value: bytes) -> bytes:
    """A column as the bytes of its text form: JSON that will be spliced into a response is never decoded."""
    return value


def boolean(value: bytes) -> bool:
    """A boolean column."""
    return value == b"t"


def binary(value: bytes) -> bytes:
    """A bytea column in the server's hex form (`bytea_output = hex`, the default)."""
    return bytes.fromhex(value[2:].decode("ascii"))


BY_TYPE: Final[Mapping[int, Convert]] = {16: boolean, 17: binary, 20: int, 21: int, 23: int, 26: int}
"""Converters by type OID for columns that were asked for by name alone; everything else becomes str."""


class Column(NamedTuple):
    """A wanted column: its name, how to convert it (None: by type), and whether the table may lack it (value: None)."""

    name: str
    convert: Convert | None = None
    optional: bool = False


Wanted = Mapping[Table, Sequence[Column | str]] | Callable[["Relation"], Sequence[Column | str] | None]
"""Which columns of which tables are decoded, in which order; rows of other tables are skipped."""


class RelationColumn(NamedTuple):
    """A column as the Relation message describes it."""

    name: str
    type_oid: int
    is_key: bool


@dataclass(frozen=True, slots=True)
class Relation:
    """A table as the server described it at this point of the stream."""

    oid: int
    table: Table
    columns: tuple[RelationColumn, ...]
    replica_identity: str


class Row(NamedTuple):
    """An inserted row: its table (the very key of a `wanted` mapping) and the wanted columns' values, as ordered."""

    table: Table
    values: tuple[Any, ...]


class Update(NamedTuple):
    """An updated row. `old` holds the old row or key if the table's replica identity made the server send one."""

    table: Table
    values: tuple[Any, ...]
    old: tuple[Any, ...] | None


class Delete(NamedTuple):
    """A deleted row: what the replica identity says of it (columns outside it are None)."""

    table: Table
    old: tuple[Any, ...]


class Truncate(NamedTuple):
    """Tables that were emptied."""

    tables: tuple[Table, ...]


class Message(NamedTuple):
    """What pg_logical_emit_message wrote. `lsn` is the end of its record; it may be confirmed if not transactional."""

    lsn: int
    prefix: str
    content: bytes
    transactional: bool


@dataclass(slots=True)
class Commit:
    """A transaction. `end_lsn` is what a consumer stores and confirms; `commit_lsn` would bring it again."""

    end_lsn: int
    commit_lsn: int
    committed_at: int
    xid: int
    rows: list[Row]
    others: list[Update | Delete | Truncate | Message]
    """What an insert-only publication does not send, and transactional messages; in order, nearly always empty."""
    size: int
    """Bytes received for it."""
    origin: str | None


Takes = tuple[tuple[int, Convert] | None, ...]


@dataclass(slots=True)
class _Plan:
    """A relation compiled for decoding: per column its (place in the result, converter), None where unwanted."""

    table: Table
    takes: Takes
    leading: Takes
    """`takes` up to the last wanted column: nothing follows an inserted row, so the rest need not be walked."""
    width: int
    blank: list[Any]


@dataclass(slots=True)
class Decoder:
    """Turns XLogData messages into Commits and Messages. One per connection: relations are announced anew on each."""

    wanted: Wanted
    transaction_bytes: int = 256 << 20
    """The largest transaction that is kept in memory; DecodeError beyond."""
    transaction: Commit | None = None
    """The transaction that has begun and not committed."""
    _plans: dict[int, _Plan | None] = field(default_factory=dict)

    def feed(self, data: bytes) -> Commit | Message | None:
        """Take one XLogData message with its header. Returns what it completes, if it completes something."""
        transaction = self.transaction
        kind = data[HEADER]
        if transaction is not None:
            transaction.size += len(data)
            if kind == 73:  # I, nearly all of the traffic
                try:
                    plan = self._plans[_U32(data, 26)[0]]
                except KeyError:
                    raise DecodeError(
                        f"row of relation {_U32(data, 26)[0]}, which the server has not described"
                    ) from None
                if plan is not None:
                    transaction.rows.append(tuple.__new__(Row, (plan.table, _values(data, 31, plan, plan.leading)[0])))
                if transaction.size > self.transaction_bytes:
                    raise DecodeError(
                        f"transaction {transaction.xid} is larger than {self.transaction_bytes} bytes; raise the limit, "
                        f"or let the consumer catch up from the tables and advance the slot past it"
                    )
                return None
        match kind:
            case 66:  # B
                commit_lsn, at, xid = _BEGIN(data, 26)
                self.transaction = Commit(0, commit_lsn, at + EPOCH_2000, xid, [], [], len(data), None)
                return None
            case 67:  # C
                if transaction is None:
                    raise DecodeError("commit without a begin")
                _, transaction.commit_lsn, transaction.end_lsn, at = _COMMIT(data, 26)
                transaction.committed_at = at + EPOCH_2000
                self.transaction = None
                return transaction
            case 77:  # M
                return self._message(data)
            case 82:  # R
                self._relation(data)
            case 85:  # U
                self._update(data)
            case 68:  # D
                relation, kind_of_old = _U32(data, 26)[0], data[30]
                if kind_of_old not in (_KEY, _OLD):
                    raise DecodeError(f"a delete carries a tuple of kind {kind_of_old}")
                if (plan := self._plan(relation)) is not None:
                    self._other(Delete(plan.table, _values(data, 31, plan, plan.takes)[0]))
            case 84:  # T
                oids = [_U32(data, 31 + 4 * i)[0] for i in range(_U32(data, 26)[0])]
                plans = [self._plan(oid) for oid in oids]
                if tables := tuple(plan.table for plan in plans if plan is not None):
                    self._other(Truncate(tables))
            case 79:  # O
                if transaction is not None:
                    transaction.origin = _string(data, 34)[0]
            case 89:  # Y: the name of a type that is not built in; its values are text like any other
                pass
            case _:
                raise DecodeError(f"message of kind {chr(kind)!r}, which protocol version 1 does not have")
        return None

    def _message(self, data: bytes) -> Message | None:
        transactional, lsn = bool(data[26] & 1), _U64(data, 27)[0]
        prefix, at = _string(data, 35)
        message = Message(lsn, prefix, data[at + 4 : at + 4 + _U32(data, at)[0]], transactional)
        if not transactional:
            return message
        self._other(message)
        return None

    def _update(self, data: bytes) -> None:
        plan = self._plan(_U32(data, 26)[0])
        if plan is None:
            return
        at, old = 30, None
        if data[at] in (_KEY, _OLD):
            old, at = _values(data, at + 1, plan, plan.takes)
        if data[at] != _NEW:
            raise DecodeError(f"an update carries a tuple of kind {data[at]}")
        values, _ = _values(data, at + 1, plan, plan.takes)
        self._other(Update(plan.table, values, old))

    def _other(self, change: Update | Delete | Truncate | Message) -> None:
        if self.transaction is None:
            raise DecodeError("a change outside a transaction")
        self.transaction.others.append(change)

    def _plan(self, oid: int) -> _Plan | None:
        if oid not in self._plans:
            raise DecodeError(f"a change of relation {oid}, which the server has not described")
        return self._plans[oid]

    def _relation(self, data: bytes) -> None:
        oid = _U32(data, 26)[0]
        schema, at = _string(data, 30)
        name, at = _string(data, at)
        identity, count = chr(data[at]), _U16(data, at + 1)[0]
        at += 3
        columns = []
        for _ in range(count):
            is_key = bool(data[at] & 1)
            column, at = _string(data, at + 1)
            columns.append(RelationColumn(column, _U32(data, at)[0], is_key))
            at += 8  # the type and its modifier
        # An empty namespace means pg_catalog.
        relation = Relation(oid, (schema or "pg_catalog", name), tuple(columns), identity)
        self._plans[oid] = _compile(relation, self.wanted)


def _compile(relation: Relation, wanted: Wanted) -> _Plan | None:
    asked = wanted(relation) if callable(wanted) else wanted.get(relation.table)
    if asked is None:
        return None
    places = {column.name: place for place, column in enumerate(relation.columns)}
    takes: list[tuple[int, Convert] | None] = [None] * len(relation.columns)
    last = -1
    for index, want in enumerate(asked):
        column = Column(want) if isinstance(want, str) else want
        place = places.get(column.name)
        if place is None and column.optional:
            continue
        if place is None:
            raise DecodeError(
                f'table {".".join(relation.table)} has no column "{column.name}" at this point of the stream; '
                f"migrate the database before the program, or mark the column as optional"
            )
        if takes[place] is not None:
            raise DecodeError(f'column "{column.name}" of {".".join(relation.table)} is wanted twice')
        takes[place] = (index, column.convert or BY_TYPE.get(relation.columns[place].type_oid, text))
        last = max(last, place)
    # The caller's own key object: comparing a row's table with it is then a comparison of addresses.
    table = relation.table if callable(wanted) else next(key for key in wanted if key == relation.table)
    return _Plan(table, tuple(takes), tuple(takes[: last + 1]), len(relation.columns), [None] * len(asked))


def _values(data: bytes, at: int, plan: _Plan, takes: Takes) -> tuple[tuple[Any, ...], int]:
    """Decode a tuple that begins at `at` (its column count); returns the values and where it ends.

    Only an UPDATE's old tuple is followed by another, so the end is that of the last column.
    """
    if _U16(data, at)[0] != plan.width:
        raise DecodeError(
            f"a row of {'.'.join(plan.table)} has {_U16(data, at)[0]} columns, described were {plan.width}"
        )
    at += 2
    values = plan.blank.copy()
    for take in takes:
        kind = data[at]
        at += 1
        if kind == _TEXT:
            end = at + 4 + _U32(data, at)[0]
            if take is not None:
                values[take[0]] = take[1](data[at + 4 : end])
            at = end
        elif kind == _UNCHANGED:
            if take is not None:
                values[take[0]] = UNCHANGED
        elif kind != _NULL:
            raise DecodeError(f"a column of {'.'.join(plan.table)} came in form {chr(kind)!r}; text was asked for")
    return tuple(values), at


def _string(data: bytes, at: int) -> tuple[str, int]:
    """A zero-terminated string and where the next field begins."""
    end = data.index(0, at)
    return data[at:end].decode(), end + 1
