"""Every question of docs/cookbook.md, taken from the page, asked of a room in which its answer is known."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from judged_rooms import Log, Room, Sent, moment

from bin.querying import Answer, ask

pytestmark = pytest.mark.postgres

PAGE = Path(__file__).parents[2] / "docs" / "cookbook.md"
QUESTION = re.compile(r"^## (\d+)\. (.+?)\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
STATEMENT = re.compile(r"^```sql\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ALICE, BOB, EVE = "@alice:example.org", "@bob:example.org", "@eve:example.org"
HOUR = 3_600_000
DAY = 24 * HOUR

QUESTIONS = {
    int(number): (title, STATEMENT.findall(text)) for number, title, text in QUESTION.findall(PAGE.read_text("utf-8"))
}


class World:
    """A pond that Alice made ten days ago, and a room that nobody has spoken in for a hundred days."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.now = int(datetime.now(UTC).timestamp() * 1000)
        log.clock = self.now - 100 * DAY
        self.silent = Room(log, ALICE, name="Silent")
        self.silent.message(ALICE, "hello?")
        self.empty = Room(log, ALICE)
        log.clock = self.now - 10 * DAY
        self.pond = pond = Room(log, ALICE, name="Pool")
        self.invited = pond.member(BOB, "invite", by=ALICE)
        self.joined = pond.member(BOB, "join", displayname="Bob")
        self.eve_joined = pond.member(EVE, "join")
        self.powers = pond.send(ALICE, "m.room.power_levels", {"users": {ALICE: 100, BOB: 50}}, state_key="")
        pond.message(BOB, "The ducks are back")
        log.clock = self.now - 5 * DAY
        self.eve_left = pond.member(EVE, "leave", by=BOB, reason="rule 2")
        self.root = pond.message(ALICE, "Shall we feed them?")
        self.replies = [pond.send(BOB, "m.room.message", {
            "msgtype": "m.text", "body": body, "m.relates_to": {"rel_type": "m.thread", "event_id": self.root.event_id},
        }) for body in ("No bread", "Peas")]  # fmt: skip
        self.edited = pond.message(BOB, "Duks like peas")
        self.edit = pond.edit(BOB, self.edited, "Ducks like peas")
        self.slander = pond.message(BOB, "The geese are stupid")
        pond.redact(ALICE, self.slander, "unkind")
        pond.relate(ALICE, self.edited, "m.annotation", key="+1")
        pond.relate(BOB, self.edited, "m.annotation", key="duck")
        pond.relate(BOB, self.root, "m.annotation", key="+1")
        log.clock = self.now - 12 * HOUR
        self.renamed = pond.send(BOB, "m.room.name", {"name": "Pond"}, state_key="")
        self.topic = pond.send(BOB, "m.room.topic", {"topic": "Ducks"}, state_key="")
        self.secret = pond.message(ALICE, "The key is under the mat")
        pond.send(BOB, "m.room.encrypted", {"algorithm": "m.megolm.v1.aes-sha2", "ciphertext": "x"})
        self._receipt(BOB, self.secret)
        self._receipt(ALICE, self.edited)
        log.commit()
        while log.connection.execute("select activity.fold_v1()").fetchone() != (0,):
            pass

    def _receipt(self, user_id: str, on: Sent) -> None:
        self.log.position += 1
        self.log.add(
            "receipts", room=self.pond.nid, user_id=user_id, receipt_type="m.read", thread_id="", event_id=on.event_id,
            event_position=on.position, ts=self.log.clock, position=self.log.position,
        )  # fmt: skip

    def asked(self, statement: str) -> str:
        """The page's statement about this world."""
        names = {
            "!pond:example.org": self.pond.room_id,
            "$edited": self.edited.event_id,
            "$secret": self.secret.event_id,
            "$root": self.root.event_id,
        }
        for name, real in names.items():
            statement = statement.replace(name, real)
        return statement

    def day(self, before: int) -> str:
        """A day as the answers have it."""
        return (datetime.now(UTC) - timedelta(days=before)).date().isoformat()


@pytest.fixture
def world(database: str) -> Iterator[World]:
    with Log(database, server_name="example.org") as log:
        log.install()
        yield World(log)


def without(answer: Answer, *columns: str) -> list[tuple[Any, ...]]:
    """The rows without columns of moments."""
    kept = [number for number, name in enumerate(answer.columns) if name not in columns]
    return [tuple(row[number] for number in kept) for row in answer.rows]


def since(value: str) -> datetime:
    return datetime.fromisoformat(value)


def was_there(w: World, a: Answer) -> None:
    assert without(a, "since") == [(ALICE, None), (BOB, "Bob"), (EVE, None)]
    assert since(a.rows[1][2]) == moment(w.joined)


def said(w: World, a: Answer) -> None:
    assert without(a, "received_at") == [(BOB, "Ducks like peas")]


def powers(w: World, a: Answer) -> None:
    assert without(a, "began_at") == [(ALICE, {ALICE: 100, BOB: 50}), (ALICE, {ALICE: 100})]
    assert since(a.rows[0][0]) == moment(w.powers)


def before_the_edit(w: World, a: Answer) -> None:
    assert without(a, "edited_at") == [("Duks like peas", "Ducks like peas")]


def taken_away(w: World, a: Answer) -> None:
    assert without(a, "received_at") == [(BOB, ALICE, "unkind")]


def could_see(w: World, a: Answer) -> None:
    assert a.rows == [(ALICE, "member", "join"), (BOB, "member", "join")]


def why_topic(w: World, a: Answer) -> None:
    assert a.rows == [(0, "state", w.topic.event_id, "m.room.topic", BOB, {"topic": "Ducks"})]


def changed(w: World, a: Answer) -> None:
    assert without(a, "changed_at") == [
        ("m.room.name", "", BOB, {"name": "Pool"}, {"name": "Pond"}),
        ("m.room.topic", "", BOB, None, {"topic": "Ducks"}),
    ]
    assert since(a.rows[0][0]) == moment(w.renamed)


def thrown_out(w: World, a: Answer) -> None:
    assert without(a, "began_at") == [(EVE, "leave", BOB, "rule 2")]


def rooms_of_eve(w: World, a: Answer) -> None:
    ((room_id, began, ended),) = a.rows
    assert (room_id, since(began), since(ended)) == (w.pond.room_id, moment(w.eve_joined), moment(w.eve_left))


def invited(w: World, a: Answer) -> None:
    assert without(a, "began_at") == [(ALICE,)]


def called(w: World, a: Answer) -> None:
    assert without(a, "began_at", "ended_at") == [("Pool", ALICE), ("Pond", BOB)]
    assert since(a.rows[0][2]) == moment(w.renamed)
    assert a.rows[1][2] is None


def threads(w: World, a: Answer) -> None:
    assert without(a, "last_reply_at") == [(w.root.event_id, ALICE, "Shall we feed them?", 2)]
    assert since(a.rows[0][4]) == moment(w.replies[1])


def in_thread(w: World, a: Answer) -> None:
    assert without(a, "received_at") == [(BOB, "No bread"), (BOB, "Peas")]


def liked(w: World, a: Answer) -> None:
    assert a.rows == [(w.edited.event_id, "Ducks like peas", 2), (w.root.event_id, "Shall we feed them?", 1)]


def read(w: World, a: Answer) -> None:
    assert without(a, "read_at") == [(BOB,)]


def busy(w: World, a: Answer) -> None:
    assert len(a.rows) == 14
    by_day = {day: (messages, senders) for day, messages, senders in a.rows}
    assert by_day[w.day(13)] == (None, None)
    assert by_day[w.day(10)] == (1, 3)
    assert by_day[w.day(7)] == (0, 0)
    assert by_day[w.day(5)] == (5, 2)


def writes_most(w: World, a: Answer) -> None:
    assert [(user, int(count)) for user, count in a.rows] == [(BOB, 6), (ALICE, 2), (EVE, 0)]


def silent(w: World, a: Answer) -> None:
    assert a.rows == [(w.empty.room_id, None, None), (w.silent.room_id, "Silent", w.day(100))]


def encrypted(w: World, a: Answer) -> None:
    assert a.rows == [(False, 7), (True, 1)]


EXPECTED: dict[int, Callable[[World, Answer], None]] = dict(enumerate((
    was_there, said, powers, before_the_edit, taken_away, could_see, why_topic, changed, thrown_out, rooms_of_eve, invited, called,
    threads, in_thread, liked, read, busy, writes_most, silent, encrypted,
), start=1))  # fmt: skip


def test_the_page_has_twenty_questions_with_one_statement_each() -> None:
    assert sorted(QUESTIONS) == list(range(1, 21)) == sorted(EXPECTED)
    assert all(len(statements) == 1 for _, statements in QUESTIONS.values())
    assert PAGE.read_text("utf-8").count("```sql") == 20


def test_every_question_of_the_page_has_its_answer(world: World, database: str) -> None:
    wrong = []
    for number, (title, (statement,)) in QUESTIONS.items():
        try:
            EXPECTED[number](world, ask(database, world.asked(statement)))
        except Exception as reason:
            wrong.append(f"{number}. {title}: {reason!r}")
    assert wrong == []
