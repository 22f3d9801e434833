"""`walden metrics` shows what all processes of a running installation count, while people talk."""

import asyncio
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from people import Person, segment
from whole_server import WholeServer

from bin.ports import free_port
from eventlog.metrics import SECONDS

pytestmark = [pytest.mark.processes, pytest.mark.slow, pytest.mark.timeout(300)]

MESSAGES = 25


class Shown:
    """One scrape."""

    def __init__(self, text: str) -> None:
        self.lines = text.splitlines()

    def value(self, name: str, **labels: str) -> float:
        """The sum over all series of a name that have these labels."""
        found = [line for line in self.lines if re.match(rf"{name}(\{{|\s)", line)]
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        values = [float(line.rpartition(" ")[2]) for line in found if all(one in line for one in wanted)]
        assert values, f"no {name} {labels} in:\n" + "\n".join(self.lines)
        return sum(values)

    @property
    def series(self) -> set[str]:
        """Every series."""
        return {line.rpartition(" ")[0] for line in self.lines if not line.startswith("#")}


class Watched(WholeServer):
    """A server that shows metrics."""

    def __init__(self, data_dir: Path) -> None:
        self.metrics = f"127.0.0.1:{free_port()}"
        # Who is present is said in entries of its own, when it changes: it would be counted too.
        fixed = {"WALDEN_CLIENT_PROCESSES": "2", "WALDEN_PRESENCE_ENABLED": "false"}
        super().__init__(data_dir, WALDEN_SERVER_METRICS_LISTEN=self.metrics, **fixed)

    def scrape(self) -> Shown:
        """What is shown now."""
        with urllib.request.urlopen(f"http://{self.metrics}/metrics", timeout=30) as answer:
            return Shown(answer.read().decode())

    def until(self, condition: Callable[[Shown], bool], seconds: float = 30) -> Shown:
        """The first scrape that fulfils a condition."""
        end = time.monotonic() + seconds
        while True:
            shown = self.scrape()
            if condition(shown):
                return shown
            assert time.monotonic() < end, "\n".join(shown.lines)
            time.sleep(0.2)


async def _talk(server: Watched) -> tuple[Shown, str]:
    """Two people, a room, messages and a refusal; the scrape while both wait, and the room."""
    async with Person(server.url) as alice, Person(server.url) as bob:
        await alice.register()
        await bob.register()
        room = await alice.create_room()
        await bob.join(room)
        for one in (alice, bob):
            one.listen(20)
        last = ""
        for number in range(MESSAGES):
            last = await alice.send(room, str(number))
        await bob.until_seen(room, last)
        await alice.until_seen(room, last)
        status, _ = await bob.once("PUT", f"rooms/{segment(room)}/state/m.room.name/", {"name": "mine"})
        assert status == 403
        status, _ = await bob.once("GET", f"rooms/{segment(room)}/nowhere")
        assert status == 404
        # Each process hands over once a second, in its own time.
        await asyncio.sleep(2 * SECONDS)
        shown = await asyncio.to_thread(server.until, lambda s: s.value("walden_sync_held_polls") == 2)
        return shown, room


def test_a_conversation_is_counted_over_all_processes(tmp_path: Path) -> None:
    with Watched(tmp_path / "d") as server:
        shown, room = asyncio.run(_talk(server))
        assert shown.value("walden_requests_total", endpoint="send", method="PUT", status="200") == MESSAGES
        assert shown.value("walden_requests_total", endpoint="state", method="PUT", status="403") == 1
        assert shown.value("walden_requests_total", endpoint="unknown", status="404") == 1
        accepted = shown.value("walden_roomserver_verdicts_total", shard="0", verdict="a")
        assert accepted >= MESSAGES + 7
        assert shown.value("walden_component_position", component="roomserver-0") == accepted
        assert shown.value("walden_roomserver_batch_entries_sum", shard="0") == accepted
        # What is refused while it is built is part of a group, and waits for no verdict.
        assert shown.value("walden_writer_group_requests_sum") == MESSAGES + 3
        assert shown.value("walden_writer_verdict_seconds_count") == MESSAGES + 2
        assert 0 < shown.value("walden_writer_append_seconds_sum") < 60
        assert shown.value("walden_sync_responses_total", kind="incremental") > 0
        assert shown.value("walden_sync_streamless_processes") == 0
        assert shown.value("walden_head_looks_total") > 1
        assert shown.value("walden_head_age_seconds") < 10
        assert shown.value("walden_database_up") == 1
        for component in ("api", "roomserver-0", "maintenance", "metrics", "postgres"):
            assert shown.value("walden_component_up", component=component) == 1
        for component in ("api", "roomserver-0"):
            assert shown.value("walden_component_lag_seconds", component=component) == 0
        assert shown.value("walden_slots", slot="sync") == 2
        assert shown.value("walden_slot_wal_status", slot="outputs", status="reserved") == 1
        assert shown.value("walden_slot_safe_wal_bytes", slot="roomserver_s0") > 0
        for waiting in ("unjudged", "deferred", "quarantined"):
            assert shown.value(f"walden_{waiting}_entries") == 0

        # No name of a room, a person, a process or a slot is in any label.
        text = "\n".join(shown.series)
        assert not re.search(r"[!@$]|person|walden_\d|pid", text.replace(room, "!"))

        # What dead processes counted stays in the totals; those who came after them add to it.
        for _ in range(2):
            server.kill("worker")
        server.kill("roomserver-0")
        server.rest()
        later, _ = asyncio.run(_talk(server))
        assert later.value("walden_requests_total", endpoint="send") >= 2 * MESSAGES
        assert later.value("walden_sync_held_polls") == 2
        folder = tmp_path / "d" / "run" / "metrics"
        pids = {file.stem.rsplit("_", 1)[-1] for file in folder.iterdir()}
        # The API's master and two workers, the room server, maintenance, projections, and all who are gone.
        assert len(pids) == 7
        assert "0" in pids


def test_a_database_that_is_gone_is_a_metric_and_the_rest_goes_on(tmp_path: Path) -> None:
    with Watched(tmp_path / "d") as server:
        postgres = server.component("postgres")
        postgres.suspend()
        children = postgres.children(recursive=True)
        for child in children:
            child.suspend()
        try:
            began = time.monotonic()
            shown = server.scrape()
            assert time.monotonic() - began < 25
            assert shown.value("walden_database_up") == 0
            assert shown.value("walden_head_looks_total") > 0
            assert not [line for line in shown.lines if line.startswith("walden_unjudged")]
        finally:
            for child in children:
                child.resume()
            postgres.resume()
        server.until(lambda s: s.value("walden_database_up") == 1)
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"http://{server.metrics}/", timeout=10)


def test_without_an_address_nothing_is_shown_or_written(tmp_path: Path) -> None:
    with WholeServer(tmp_path / "d") as server:
        assert "metrics" not in {one["name"] for one in server.status()["components"]}
        assert not (tmp_path / "d" / "run" / "metrics").exists()
        done = server.walden("metrics")
        assert (done.returncode, "server.metrics_listen" in done.stderr) == (3, True)
