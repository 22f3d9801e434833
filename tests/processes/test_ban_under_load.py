"""Two API processes, many senders, one of them banned in the middle: who builds on what must not depend on luck."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from people import Person, segment
from projections import differences
from whole_server import WholeServer

pytestmark = [pytest.mark.processes, pytest.mark.slow, pytest.mark.timeout(300)]

SENDERS, MESSAGES = 32, 30


async def test_only_the_banned_ones_events_are_refused_and_nothing_rests_on_a_refused_one(
    tmp_path: Path, figures: Callable[[str], None]
) -> None:
    with WholeServer(tmp_path / "d", WALDEN_CLIENT_PROCESSES="2") as server:
        workers = psutil.Process(server.pids()["api"]).children()
        assert len(workers) == 2
        async with Person(server.url) as owner, Person(server.url) as observer:
            await owner.register()
            await observer.register()
            room_id = await owner.create_room()
            await observer.join(room_id)
            senders = [await Person(server.url).register() for _ in range(SENDERS)]
            try:
                await asyncio.gather(*(person.join(room_id) for person in senders))
                observer.listen()
                before = [process.cpu_times().user for process in workers]
                banned = senders[7]
                answers = await _talk(owner, senders, banned, room_id)
                busy = [process.cpu_times().user - b for process, b in zip(workers, before, strict=True)]
                # The two share one listener, and connections are spread by whoever is free to take them.
                assert min(busy) > 0.02, busy
            finally:
                for person in senders:
                    await person.__aexit__(None, None, None)

            for person in senders:
                statuses = [status for status, _ in answers[person.user_id]]
                if person is not banned:
                    assert statuses == [200] * MESSAGES
            refused = [body for status, body in answers[banned.user_id] if status != 200]
            assert refused
            assert {body["errcode"] for body in refused} == {"M_FORBIDDEN"}
            statuses = [status for status, _ in answers[banned.user_id]]
            assert statuses == sorted(statuses), "accepted again after the ban"

            acknowledged = [body["event_id"] for all_of in answers.values() for status, body in all_of if status == 200]
            assert len(acknowledged) == len(set(acknowledged))
            last = await owner.send(room_id, "the last")
            await observer.until_seen(room_id, last)
            seen = observer.event_ids(room_id)
            assert len(seen) == len(set(seen))
            assert set(acknowledged) <= set(seen)
            messages = [
                e["event_id"] for e in observer.timelines[room_id] if e["content"].get("body", "").startswith("m")
            ]
            assert set(messages) == set(acknowledged), "an event that was refused is shown"
            ban = next(e for e in observer.timelines[room_id] if e["content"].get("membership") == "ban")
            after = observer.timelines[room_id][seen.index(ban["event_id"]) :]
            assert not [e for e in after if e["sender"] == banned.user_id]
        await asyncio.to_thread(server.rest)
        # Among its questions: does any accepted event rest on one that was not.
        assert differences(server.settings.dsn()) == {}
        verdicts = {
            row["verdict"]: row["count"]
            for row in server.rows("select verdict, count(*) from eventlog.outputs where kind <> 'u' group by verdict")
        }
        extremities = server.rows("select cardinality(extremities) as n from roomserver.heads")
        assert max(row["n"] for row in extremities) <= 2
        figures(f"ban under load: {len(acknowledged)} acknowledged, {len(refused)} refused, verdicts {verdicts}")


async def _talk(
    owner: Person, senders: list[Person], banned: Person, room_id: str
) -> dict[str, list[tuple[int, dict[str, str]]]]:
    """All send at once, each one message after the other; in the middle the owner bans. Answers by user."""
    answers: dict[str, list[tuple[int, dict[str, str]]]] = {person.user_id: [] for person in senders}
    middle = asyncio.Event()
    path = f"rooms/{segment(room_id)}"

    async def send(person: Person) -> None:
        for number in range(MESSAGES):
            text = f"m {person.name} {number}"
            body = {"msgtype": "m.text", "body": text}
            answers[person.user_id].append(await person.once("PUT", f"{path}/send/m.room.message/{number}", body))
            if sum(map(len, answers.values())) >= SENDERS * MESSAGES // 3:
                middle.set()

    async def ban() -> None:
        await middle.wait()
        await owner.call("POST", f"{path}/ban", {"user_id": banned.user_id, "reason": "enough"})

    await asyncio.gather(ban(), *map(send, senders))
    return answers
