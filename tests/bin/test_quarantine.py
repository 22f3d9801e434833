"""`walden quarantine`: what could not be judged can be looked at, sent again and dismissed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner, Result
from local_rooms import Talk, talk
from running_roomserver import running, settings_for
from structlog.testing import capture_logs

from bin.command import main
from matrix.errors import MatrixError
from matrix.events import Event
from roomserver import judge
from writer.drafts import Draft

pytestmark = pytest.mark.postgres


@dataclass
class Ward:
    """A room with one message in quarantine, whose sender was told of a failure."""

    dsn: str
    folder: Path
    talk: Talk
    room: str
    entry: int
    poison: set[str]
    """Texts that the room server chokes on."""

    async def walden(self, *arguments: str) -> Result:
        environ = {
            "WALDEN_DATA_DIR": str(self.folder),
            "WALDEN_CONFIG": str(self.folder / "walden.toml"),
            "WALDEN_DATABASE_DSN": self.dsn,
            "WALDEN_SERVER_NAME": "test.example",
        }
        return await asyncio.to_thread(CliRunner().invoke, main, ["quarantine", *arguments], env=environ)

    async def send(self, body: str = "poison", txn: str = "t1") -> str:
        (sent,) = await self.talk.writer.send([self.talk.message(self.room, body, txn=txn)])
        return sent.event_id

    def rows(self, query: str) -> list[tuple[object, ...]]:
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            return connection.execute(query).fetchall()

    def waiting(self) -> list[int]:
        return [
            row[0]  # type: ignore[misc]
            for row in self.rows("select entry from roomserver.quarantine where resolved_at is null order by entry")
        ]


@pytest.fixture
async def ward(provisioned: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Ward]:
    real = judge.relate
    poison = {"poison"}

    def relate(room: object, event: Event, *more: object) -> None:
        if event.content.get("body") in poison:
            raise RuntimeError("cannot digest this\nat all")
        real(room, event, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(judge, "relate", relate)
    (tmp_path / "walden.toml").write_text("")
    settings = settings_for(provisioned, tmp_path)
    # Captured, for tracebacks with all that is in their frames take seconds to print.
    with capture_logs():
        async with running(settings), talk(settings) as t:
            one = Ward(provisioned, tmp_path, t, await t.room(), 0, poison)
            with pytest.raises(MatrixError) as told:
                await one.send()
            assert told.value.status == 500
            (one.entry,) = one.waiting()
            yield one


async def test_an_entry_is_shown_with_its_error_and_what_was_sent(ward: Ward) -> None:
    listed = await ward.walden("show")
    assert listed.output.splitlines() == [
        f"{ward.entry} m.room.message of @creator:test.example in {ward.room}: RuntimeError: cannot digest this"
    ]
    shown = (await ward.walden("show", str(ward.entry))).output
    assert "at all" in shown and '"body":"poison"' in shown
    row = json.loads((await ward.walden("show", "--json")).output)
    assert (row["entry"], row["attempts"]) == (ward.entry, 3)


async def test_what_is_requeued_once_its_cause_is_mended_is_one_event_and_the_answer_to_a_repeated_request(
    ward: Ward,
) -> None:
    ward.poison.clear()
    await ward.send("afterwards", "t2")
    done = await ward.walden("requeue", str(ward.entry))
    assert (done.exit_code, ward.waiting()) == (0, []), done.output
    assert ward.rows(f"select resolution from roomserver.quarantine where entry = {ward.entry}") == [("requeued",)]
    event_id = await ward.send()
    accepted = ward.rows(
        "select e.event_id, e.txn_id, e.device_id from eventlog.outputs o join eventlog.events e on e.id = o.entry"
        " where o.verdict = 'a' and e.json like '%poison%'"
    )
    assert accepted == [(event_id, "t1", "D")]
    again = await ward.walden("requeue", str(ward.entry))
    assert again.exit_code == 1 and "not in quarantine" in again.output


async def test_a_requeueing_that_was_broken_off_makes_no_second_event(ward: Ward) -> None:
    ward.poison.clear()
    await ward.walden("requeue", "--all")
    with psycopg.connect(ward.dsn, autocommit=True) as connection:
        connection.execute("update roomserver.quarantine set resolved_at = null, resolution = null")
    await ward.walden("requeue", "--all")
    assert ward.waiting() == []
    assert ward.rows("select count(*) from eventlog.events where json like '%poison%'") == [(2,)]


async def test_what_fails_again_is_in_quarantine_again_and_once(ward: Ward) -> None:
    done = await ward.walden("requeue", "--all")
    assert "failed again" in done.output and done.exit_code == 1
    (entry,) = ward.waiting()
    assert entry != ward.entry
    with pytest.raises(MatrixError):
        await ward.send()
    ward.poison.clear()
    assert (await ward.walden("requeue", str(entry))).exit_code == 0
    assert await ward.send()
    assert ward.waiting() == []


async def test_what_the_room_does_not_allow_any_more_stays(ward: Ward) -> None:
    ward.poison.clear()
    t = ward.talk
    await t.writer.send([Draft(ward.room, t.user, "m.room.member", {"membership": "leave"}, t.user)])
    done = await ward.walden("requeue", "--all")
    assert done.exit_code == 1 and "was not accepted" in done.output
    assert ward.waiting() == [ward.entry]


async def test_an_entry_of_a_user_and_a_state_event_are_requeued_as_well(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> str:
        raise RuntimeError("nor this")

    t = ward.talk
    with monkeypatch.context() as patch:
        patch.setattr("roomserver.decisions.judge_user_entry", broken)
        with pytest.raises(MatrixError):
            await t.writer.append_entry(
                type="account_data", user_id=t.user, content={"room_id": "", "type": "x", "content": {"a": 1}}
            )
    with pytest.raises(MatrixError):
        await t.writer.send([Draft(ward.room, t.user, "m.room.topic", {"topic": "pond", "body": "poison"}, "")])
    ward.poison.clear()
    done = await ward.walden("requeue", "--all")
    assert (done.exit_code, ward.waiting()) == (0, []), done.output
    assert ward.rows("select content::json ->> 'a' from roomserver.account_data where type = 'x'") == [("1",)]
    assert ward.rows("select count(*) from roomserver.state where type = 'm.room.topic'") == [(1,)]


async def test_what_is_dismissed_is_told_of_no_more(ward: Ward) -> None:
    assert (await ward.walden("dismiss", str(ward.entry))).output == "dismissed 1 entries\n"
    assert ward.waiting() == []
    assert ward.rows("select resolution from roomserver.quarantine") == [("dismissed",)]
    assert (await ward.walden("dismiss")).exit_code == 2
