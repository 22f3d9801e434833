"""Rooms as the room server leaves them, for tests of what reads them: events in the log, judged, with state over time.

Invariant: what stands in the tables is what the real components write for a room of one line in which everything is accepted
(or given the verdict the test names): entries through plain inserts, verdicts through `roomserver.commit_v1`.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import orjson
import psycopg

from eventlog.safe_text import safe
from matrix.canonical import encode_canonical
from matrix.events import Event, build_event
from matrix.room_versions import ROOM_VERSIONS, RoomVersion
from matrix.signatures import SigningKey

SERVER = "test.example"
KEY = SigningKey.generate("test")
LETTERS = {"join": "j", "invite": "i", "leave": "l", "ban": "b", "knock": "k"}
# 2026-01-01: rooms have a past that does not depend on when the test runs.
FIRST_MILLISECOND = 1_767_225_600_000
MOST_IN_A_BATCH = 5_000

History = psycopg.Connection[dict[str, Any]]

INSERT = """
insert into eventlog.events (id, kind, shard, local, seq, event_id, room_id, type, state_key, sender, device_id, txn_id, json)
values (%s, %s, %s, true, %s, %s, %s, %s, %s, %s, %s, %s, %s)
"""


class Sent(NamedTuple):
    """One event of a room: where it is in the log and in the outputs."""

    event_id: str
    entry: int
    position: int
    event: Event


def moment(sent: Sent, seconds: float = 0.0) -> datetime:
    """When an event was appended, and some seconds later."""
    return datetime.fromtimestamp((sent.entry >> 20) / 1000, UTC) + timedelta(seconds=seconds)


class Log:
    """The two logs of one database, written to as all components together do. `clock` is the next event's millisecond."""

    def __init__(self, dsn: str, *, shard: int = 0, server_name: str = SERVER) -> None:
        self.connection = psycopg.connect(dsn, autocommit=True)
        self.server_name = server_name
        self.shard = shard
        self.owner = str(uuid.uuid4())
        self.clock = FIRST_MILLISECOND
        self.batch: dict[str, list[dict[str, Any]]] = {}
        self.rows: list[Sequence[Any]] = []
        self.heads: dict[int, dict[str, Any]] = {}
        self.connection.execute(
            "insert into eventlog.epochs (epoch, system_identifier, timeline, reason)"
            " select 'e1', '1', 1, 'init' where not exists (select from eventlog.epochs)"
        )
        self.connection.execute(
            "insert into eventlog.positions (component, shard, position, lsn, epoch)"
            " select 'roomserver', %s, 0, '0/0', epoch from eventlog.epochs order by ordinal desc limit 1"
            " on conflict do nothing",
            [shard],
        )
        row = self.connection.execute(
            "update eventlog.positions set owner = %s where component = 'roomserver' and shard = %s returning position",
            [self.owner, shard],
        ).fetchone()
        assert row is not None
        self.position: int = row[0]
        self.committed = self.position

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def install(self) -> None:
        """Says whose database this is: what asks who is local wants to know."""
        self.connection.execute(
            "insert into eventlog.installation (server_name, signing_key_id, signing_key, shards)"
            " values (%s, 'ed25519:a', 'key', 1)",
            [self.server_name],
        )

    def add(self, name: str, **row: Any) -> None:
        """Adds a row to one of commit_v1's lists."""
        self.batch.setdefault(name, []).append(row)

    def next_entry(self) -> int:
        """An entry id of the present millisecond; the clock moves on by one."""
        self.clock += 1
        return self.clock << 20

    def commit(self) -> None:
        """Writes what has been gathered: the entries, then the verdicts on them."""
        with self.connection.transaction(), self.connection.cursor() as cursor:
            cursor.executemany(INSERT, self.rows)
            cursor.executemany(
                "insert into eventlog.event_keys (key, id) values (eventlog.event_key(%s), %s)",
                [(row[4], row[0]) for row in self.rows if row[4] is not None],
            )
            batch = {
                "shard": self.shard,
                "owner": self.owner,
                "from": self.committed,
                "to": self.position,
                "lsn": "0/1",
                **self.batch,
                "heads": list(self.heads.values()),
            }
            cursor.execute("select roomserver.commit_v1(%s)", [orjson.dumps(batch).decode()])
        self.committed = self.position
        self.batch, self.rows, self.heads = {}, [], {}

    def account_data(self, user_id: str, kind: str, content: dict[str, Any], room_id: str = "") -> None:
        """Sets a user's account data."""
        self.position += 1
        self.add(
            "account_data",
            user_id=user_id,
            room_id=room_id,
            type=kind,
            content=orjson.dumps(content).decode(),
            position=self.position,
        )


class Room:
    """A room on its main line. Every method gathers; `log.commit()` writes."""

    def __init__(
        self,
        log: Log,
        creator: str,
        *,
        version: str = "11",
        visibility: str | None = None,
        name: str | None = None,
        type: str | None = None,
    ) -> None:
        self.log = log
        self.version: RoomVersion = ROOM_VERSIONS[version]
        self.creator = creator
        self.room_id = "" if self.version.room_id_is_create_event_id else f"!{uuid.uuid4().hex}:{log.server_name}"
        row = log.connection.execute("select nextval('roomserver.rooms_nid_seq')").fetchone()
        assert row is not None
        self.nid: int = row[0]
        self.seq = self.depth = self.state_position = self.joined = self.invited = 0
        self.last: str | None = None
        self.state: dict[tuple[str, str], Sent] = {}
        self.content_of_create = {"room_version": version}
        if not self.version.redaction.keeps_all_of_create:
            self.content_of_create["creator"] = creator
        if type is not None:
            self.content_of_create["type"] = type
        create = self.send(creator, "m.room.create", self.content_of_create, state_key="")
        log.add("rooms", nid=self.nid, room_id=self.room_id, room_version=version)
        self.create = create
        self.member(creator, "join")
        self.send(creator, "m.room.power_levels", {"users": {creator: 100}}, state_key="")
        self.send(creator, "m.room.join_rules", {"join_rule": "public"}, state_key="")
        if visibility is not None:
            self.visibility(visibility)
        if name is not None:
            self.send(creator, "m.room.name", {"name": name}, state_key="")

    def member(self, user_id: str, membership: str, *, by: str | None = None, **content: Any) -> Sent:
        """Changes a membership."""
        return self.send(
            by or user_id, "m.room.member", {"membership": membership, **content}, state_key=user_id, member=membership
        )

    def visibility(self, value: str) -> Sent:
        """Sets the history visibility."""
        return self.send(self.creator, "m.room.history_visibility", {"history_visibility": value}, state_key="")

    def message(self, sender: str, body: str, **content: Any) -> Sent:
        """Says something."""
        return self.send(sender, "m.room.message", {"msgtype": "m.text", "body": body, **content})

    def messages(self, senders: Sequence[str], count: int) -> None:
        """Says much, committing in between."""
        for number in range(count):
            self.message(senders[number % len(senders)], f"message {number}")
            if len(self.log.rows) >= MOST_IN_A_BATCH:
                self.log.commit()

    def edit(self, sender: str, target: Sent, body: str) -> Sent:
        """Replaces a message."""
        return self.message(
            sender,
            f"* {body}",
            **{
                "m.new_content": {"msgtype": "m.text", "body": body},
                "m.relates_to": {"rel_type": "m.replace", "event_id": target.event_id},
            },
        )

    def relate(self, sender: str, target: Sent, rel_type: str, kind: str = "m.reaction", **more: Any) -> Sent:
        """Sends an event that relates to another one."""
        return self.send(sender, kind, {"m.relates_to": {"rel_type": rel_type, "event_id": target.event_id, **more}})

    def redact(self, sender: str, target: Sent, reason: str = "spam") -> Sent:
        """Redacts an event, and the redaction takes effect."""
        sent = self.send(sender, "m.room.redaction", {"reason": reason}, redacts=target.event_id)
        self.log.add(
            "redactions",
            target=target.event_id,
            redaction=sent.event_id,
            entry=sent.entry,
            room=self.nid,
            position=sent.position,
        )
        return sent

    def send(
        self,
        sender: str,
        kind: str,
        content: dict[str, Any],
        *,
        state_key: str | None = None,
        member: str | None = None,
        verdict: str = "a",
        redacts: str | None = None,
        device_id: str | None = None,
        txn_id: str | None = None,
        origin_server_ts: int | None = None,
    ) -> Sent:
        """Sends an event and gives it a verdict."""
        log = self.log
        entry = log.next_entry()
        is_create = kind == "m.room.create"
        event, canonical = build_event(
            room_version=self.version,
            room_id=None if is_create and self.version.room_id_is_create_event_id else self.room_id,
            sender=sender,
            type=kind,
            state_key=state_key,
            content=content,
            prev_events=[] if self.last is None else [self.last],
            auth_events=[],
            depth=self.depth + 1,
            origin_server_ts=log.clock if origin_server_ts is None else origin_server_ts,
            server_name=log.server_name,
            signing_key=KEY,
            redacts=redacts,
            # Versions 1 and 2 want the hashes of what is referred to; nothing that reads rooms looks at them.
            reference_hashes={} if self.last is None else {self.last: "AA"},
        )
        if is_create:
            self.room_id = event.room_id
        position = log.position = log.position + 1
        letter = "s" if state_key is not None else "m"
        log.rows.append(
            (
                entry,
                letter,
                log.shard,
                self.seq + 1,
                event.event_id,
                self.room_id,
                safe(kind),
                None if state_key is None else safe(state_key),
                sender,
                device_id,
                txn_id,
                canonical.decode(),
            )
        )
        sent = Sent(event.event_id, entry, position, event)
        if verdict != "a":
            log.add("outputs", p=position, k=letter, e=entry, r=self.nid, v=verdict, w="refused by the test")
            return sent
        annotation = self._change(sent, member) if state_key is not None else None
        if redacts is not None:
            annotation = {"redacts": redacts}
        log.add(
            "outputs",
            p=position,
            k=letter,
            e=entry,
            r=self.nid,
            v="a",
            t=position,
            a=None if annotation is None else orjson.dumps(annotation).decode(),
        )
        self._relations(sent)
        self.seq += 1
        self.depth += 1
        self.last = event.event_id
        log.heads[self.nid] = {
            "room": self.nid,
            "extremities": [event.event_id],
            "depth": self.depth,
            "position": position,
            "state_position": self.state_position,
            "judged_seq": self.seq,
            "generation": 0,
            "joined": self.joined,
            "invited": self.invited,
        }
        return sent

    def _change(self, sent: Sent, member: str | None) -> dict[str, Any]:
        event, position = sent.event, sent.position
        assert event.state_key is not None
        key = event.type, event.state_key
        where = {"room": self.nid, "line": 0, "type": safe(key[0]), "state_key": safe(key[1])}
        old = self.state.get(key)
        annotation: dict[str, Any] = {"current": True}
        if old is not None:
            annotation |= {
                "replaces": old.event_id,
                "prev_sender": old.event.sender,
                "prev_content": old.event.content,
            }
            standing = [r for r in self.log.batch.get("state", []) if where.items() <= r.items() and "t" not in r]
            if standing:
                standing[0]["t"] = position
            else:
                self.log.add("closed", **where, at=position)
        letter = None if member is None else LETTERS[member]
        self.log.add("state", **where, f=position, entry=sent.entry, event_id=sent.event_id, membership=letter)
        if letter is not None:
            before = None if old is None else LETTERS[old.event.content["membership"]]
            self.joined += (letter == "j") - (before == "j")
            self.invited += (letter == "i") - (before == "i")
            annotation |= {"members": [[key[1], letter, before]], "joined": self.joined, "invited": self.invited}
            earlier = [
                r for r in self.log.batch.get("memberships", []) if r["user_id"] == key[1] and r["room"] == self.nid
            ]
            row = {"membership": letter, "position": position, "entry": sent.entry, "sender": event.sender}
            if letter == "j" and before != "j":
                row["joined_at"] = position
            if earlier:
                earlier[0].update(row)
            else:
                self.log.add("memberships", user_id=key[1], room=self.nid, **row)
        self.state[key] = sent
        self.state_position = position
        return annotation

    def _relations(self, sent: Sent) -> None:
        relation = sent.event.content.get("m.relates_to")
        if isinstance(relation, dict) and "event_id" in relation and "rel_type" in relation:
            self.log.add(
                "relations",
                target=relation["event_id"],
                rel_type=relation["rel_type"],
                timeline=sent.position,
                entry=sent.entry,
                room=self.nid,
                event_id=sent.event_id,
                sender=sent.event.sender,
            )


def bodies(events: Iterable[dict[str, Any]]) -> list[str]:
    """What the messages among some client events say."""
    return [e["content"].get("body", "") for e in events if e["type"] == "m.room.message"]


def canonical(value: Any) -> str:
    """Canonical JSON as text."""
    return encode_canonical(value).decode()
