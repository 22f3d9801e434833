import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventlog.pgoutput import (
    EPOCH_2000,
    UNCHANGED,
    Column,
    Commit,
    DecodeError,
    Decoder,
    Delete,
    Message,
    Relation,
    Row,
    Truncate,
    Update,
    raw,
)

TABLE = ("log", "entries")
INT8, TEXT, BYTEA, BOOL = 20, 25, 17, 16
HEAD = b"w" + bytes(24)


def begin(commit_lsn: int = 10) -> bytes:
    return HEAD + b"B" + struct.pack(">QqI", commit_lsn, 1_000_000, 77)


def commit(end_lsn: int = 12) -> bytes:
    return HEAD + b"C" + struct.pack(">BQQq", 0, 10, end_lsn, 1_000_000)


def relation(*columns: tuple[str, int], oid: int = 5, table: tuple[str, str] = TABLE) -> bytes:
    names = b"".join(b"\1" + name.encode() + b"\0" + struct.pack(">Ii", kind, -1) for name, kind in columns)
    schema, name = table
    return (
        HEAD
        + b"R"
        + struct.pack(">I", oid)
        + schema.encode()
        + b"\0"
        + name.encode()
        + b"\0d"
        + struct.pack(">H", len(columns))
        + names
    )


def values(*columns: bytes | None) -> bytes:
    parts = [b"n" if c is None else b"u" if c == b"\0u" else b"t" + struct.pack(">I", len(c)) + c for c in columns]
    return struct.pack(">H", len(columns)) + b"".join(parts)


def insert(*columns: bytes | None, oid: int = 5) -> bytes:
    return HEAD + b"I" + struct.pack(">I", oid) + b"N" + values(*columns)


def run(decoder: Decoder, *messages: bytes) -> Commit:
    *before, last = [decoder.feed(message) for message in messages]
    assert before == [None] * len(before)
    assert isinstance(last, Commit)
    return last


def test_a_transaction_comes_whole_with_its_end_its_time_and_its_rows() -> None:
    decoder = Decoder({TABLE: ["body", "id"]})
    done = run(decoder, begin(), relation(("id", INT8), ("body", TEXT)), insert(b"7", "ä".encode()), commit())
    assert (done.commit_lsn, done.end_lsn, done.xid, done.committed_at) == (10, 12, 77, EPOCH_2000 + 1_000_000)
    assert done.rows == [Row(TABLE, ("ä", 7))]
    assert decoder.transaction is None


def test_types_decide_the_conversion_where_none_is_asked() -> None:
    columns = [("id", INT8), ("flag", BOOL), ("hash", BYTEA), ("body", TEXT), ("json", TEXT)]
    decoder = Decoder({TABLE: ["id", "flag", "hash", "body", Column("json", raw)]})
    done = run(decoder, begin(), relation(*columns), insert(b"-1", b"t", b"\\x00ff", b"b", b"{}"), commit())
    assert done.rows[0].values == (-1, True, b"\x00\xff", "b", b"{}")


@given(st.lists(st.one_of(st.none(), st.text().map(str.encode)), min_size=1, max_size=12), st.data())
def test_any_columns_in_any_order_come_out_as_they_went_in(row: list[bytes | None], data: st.DataObject) -> None:
    names = [f"c{i}" for i in range(len(row))]
    asked = data.draw(st.lists(st.sampled_from(names), unique=True))
    decoder = Decoder({TABLE: [Column(name, raw) for name in asked]})
    done = run(decoder, begin(), relation(*((name, TEXT) for name in names)), insert(*row), commit())
    assert done.rows[0].values == tuple(row[names.index(name)] for name in asked)


def test_the_callers_own_key_is_the_rows_table() -> None:
    key = ("log", "ent" + "ries")
    done = run(Decoder({key: ["id"]}), begin(), relation(("id", INT8)), insert(b"1"), commit())
    assert done.rows[0].table is key


def test_rows_of_other_tables_are_skipped() -> None:
    other = relation(("x", TEXT), oid=6, table=("log", "other"))
    done = run(Decoder({TABLE: ["id"]}), begin(), other, insert(b"1", oid=6), commit())
    assert done.rows == []


def test_a_function_may_say_what_is_wanted() -> None:
    def wanted(described: Relation) -> list[str] | None:
        return [column.name for column in described.columns] if described.table == TABLE else None

    done = run(Decoder(wanted), begin(), relation(("id", INT8), ("b", TEXT)), insert(b"1", None), commit())
    assert done.rows == [Row(TABLE, (1, None))]


def test_a_column_added_in_mid_transaction_is_seen_where_it_was_added() -> None:
    done = run(
        Decoder({TABLE: ["id", Column("late", optional=True)]}),
        begin(),
        relation(("id", INT8)),
        insert(b"1"),
        relation(("id", INT8), ("late", TEXT)),
        insert(b"2", b"here"),
        commit(),
    )
    assert [row.values for row in done.rows] == [(1, None), (2, "here")]


def test_a_wanted_column_that_is_missing_is_an_error_that_names_it() -> None:
    with pytest.raises(DecodeError, match=r'log\.entries has no column "late"'):
        Decoder({TABLE: ["late"]}).feed(relation(("id", INT8)))


def test_updates_deletes_and_truncations_are_decoded() -> None:
    decoder = Decoder({TABLE: ["id", "body"]})
    relid = struct.pack(">I", 5)
    done = run(
        decoder,
        begin(),
        relation(("id", INT8), ("body", TEXT)),
        HEAD + b"U" + relid + b"N" + values(b"1", b"\0u"),
        HEAD + b"U" + relid + b"K" + values(b"1", None) + b"N" + values(b"2", b"b"),
        HEAD + b"D" + relid + b"K" + values(b"2", None),
        HEAD + b"T" + struct.pack(">IB", 1, 0) + relid,
        commit(),
    )
    assert done.others == [
        Update(TABLE, (1, UNCHANGED), None),
        Update(TABLE, (2, "b"), (1, None)),
        Delete(TABLE, (2, None)),
        Truncate((TABLE,)),
    ]


def test_messages_come_alone_unless_they_are_transactional() -> None:
    def message(flags: int) -> bytes:
        return HEAD + b"M" + struct.pack(">BQ", flags, 9) + b"walden.typing\0" + struct.pack(">I", 3) + b"\0\1\2"

    decoder = Decoder({})
    assert decoder.feed(message(0)) == Message(9, "walden.typing", b"\0\1\2", False)
    done = run(decoder, begin(), message(1), commit())
    assert done.others == [Message(9, "walden.typing", b"\0\1\2", True)]


def test_origins_are_kept_and_type_names_are_passed_over() -> None:
    origin = HEAD + b"O" + struct.pack(">Q", 3) + b"elsewhere\0"
    kind = HEAD + b"Y" + struct.pack(">I", 3) + b"log\0colour\0"
    assert run(Decoder({}), begin(), origin, kind, commit()).origin == "elsewhere"


def test_a_transaction_beyond_the_limit_is_an_error_and_not_memory() -> None:
    decoder = Decoder({TABLE: ["id", "body"]}, transaction_bytes=10_000)
    decoder.feed(begin())
    decoder.feed(relation(("id", INT8), ("body", TEXT)))
    with pytest.raises(DecodeError, match="transaction 77 is larger than 10000 bytes"):
        for _ in range(20):
            decoder.feed(insert(b"1", b"x" * 1000))


@pytest.mark.parametrize(
    ("message", "match"),
    [
        (insert(b"1", oid=99), "relation 99"),
        (insert(b"1", b"2", b"3"), "3 columns, described were 1"),
        (HEAD + b"S" + bytes(5), "'S'"),
        (insert(b"1")[:31] + struct.pack(">H", 1) + b"b" + struct.pack(">I", 0), "'b'"),
    ],
    ids=["unknown relation", "wrong width", "streamed transaction", "binary value"],
)
def test_what_protocol_version_1_does_not_allow_is_refused(message: bytes, match: str) -> None:
    decoder = Decoder({TABLE: ["id"]})
    decoder.feed(begin())
    decoder.feed(relation(("id", INT8)))
    with pytest.raises(DecodeError, match=match):
        decoder.feed(message)


def test_a_commit_without_a_begin_is_refused() -> None:
    with pytest.raises(DecodeError, match="without a begin"):
        Decoder({}).feed(commit())
