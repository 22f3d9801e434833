"""Messages to devices, and claims of one-time keys: what encryption asks of a server.

Both keep 32 requests in flight. A message counts when the device it was sent to has it from /sync, a key when an answer had it; no
message may come twice, and no key. The server's answers are read, and not just counted.
"""

import asyncio
import time
from collections import Counter

from bin.benchmark.account import Account, Refused
from bin.benchmark.connection import ConnectionFailed
from bin.benchmark.row import IN_FLIGHT, Figure, Row, Sample, Scale, failure_sentences

ALGORITHM = "signed_curve25519"
KEYS = 500
"""One-time keys of a device: as many as both servers take in one request."""
DRAIN_SECONDS = 60.0


class ToDevice(Row):
    """32 users send one message after another to a device of another of them, who all follow with long polls."""

    name = "to-device"

    @classmethod
    def figures(cls, scale: Scale) -> tuple[Figure, ...]:
        return (Figure("to-device", "messages to devices, accepted and delivered, 32 in flight", "/s", True),)

    async def prepare(self) -> None:
        self.users = await self.server.register(self.name, IN_FLIGHT)
        self.tokens: list[str] = []
        for user in self.users:
            answer, _ = await user.sync(None, 0, await user.filter(1))
            self.tokens.append(answer["next_batch"])

    async def measure(self, number: int) -> Sample:
        received: Counter[str] = Counter()
        sent: set[str] = set()
        failures: list[Exception] = []
        last = time.perf_counter()
        done = asyncio.Event()

        async def follow(place: int) -> None:
            nonlocal last
            user = self.users[place]
            chosen = await user.filter(1)
            while not (done.is_set() and len(received) >= len(sent)):
                answer, response = await user.sync(self.tokens[place], 1.0, chosen)
                self.tokens[place] = answer["next_batch"]
                events = answer.get("to_device", {}).get("events", [])
                received.update(event["content"]["n"] for event in events if event["type"] == "org.example.bench")
                if events:
                    last = response.received
                if done.is_set() and time.perf_counter() > end:
                    return

        async def work(place: int) -> None:
            sender, receiver = self.users[place], self.users[(place + 1) % IN_FLIGHT]
            count = 0
            while time.perf_counter() < deadline:
                count += 1
                name = f"{number}.{place}.{count}"
                body = {"messages": {receiver.user_id: {"*": {"n": name}}}}
                try:
                    await sender.call("PUT", f"/v3/sendToDevice/org.example.bench/{name}", body)
                except (ConnectionFailed, Refused, ValueError) as failure:
                    failures.append(failure)
                else:
                    sent.add(name)

        meter = self.server.meter()
        start = time.perf_counter()
        deadline = start + self.scale.seconds
        end = deadline + DRAIN_SECONDS
        following = [asyncio.create_task(follow(place)) for place in range(IN_FLIGHT)]
        try:
            await asyncio.gather(*(work(place) for place in range(IN_FLIGHT)))
            done.set()
            await asyncio.gather(*following)
        finally:
            for task in following:
                task.cancel()
        usage = meter.read()
        faults = failure_sentences(failures)
        if missing := len(sent - received.keys()):
            faults.append(f"{missing} of {len(sent)} messages did not come")
        if twice := sum(1 for times in received.values() if times > 1):
            faults.append(f"{twice} messages came more than once")
        return Sample({"to-device": len(sent) / (last - start)}, {"sent": len(sent)}, faults, usage)


class KeyClaims(Row):
    """32 users claim one key after another, each from the next of 32 devices."""

    name = "key-claims"

    @classmethod
    def figures(cls, scale: Scale) -> tuple[Figure, ...]:
        return (Figure("key-claims", "one-time keys claimed, 32 in flight", "/s", True),)

    async def prepare(self) -> None:
        self.users = await self.server.register(self.name, IN_FLIGHT)
        self.devices = []
        for user in self.users:
            answer, _ = await user.call("GET", "/v3/account/whoami")
            self.devices.append((user.user_id, str(answer["device_id"])))

    async def measure(self, number: int) -> Sample:
        for user in self.users:
            keys = {f"{ALGORITHM}:r{number}k{n}": {"key": f"{number}.{n}", "signatures": {}} for n in range(KEYS)}
            await user.call("POST", "/v3/keys/upload", {"one_time_keys": keys})
        claimed: Counter[tuple[str, str]] = Counter()
        failures: list[Exception] = []

        async def work(place: int) -> None:
            user, count = self.users[place], place
            while time.perf_counter() < deadline:
                count += 1
                user_id, device_id = self.devices[count % IN_FLIGHT]
                try:
                    found = await _claim(user, user_id, device_id)
                except (ConnectionFailed, Refused, ValueError) as failure:
                    failures.append(failure)
                    continue
                if not found:
                    # This device has none left, and so will soon all.
                    return
                claimed.update((user_id, key_id) for key_id in found)

        meter = self.server.meter()
        start = time.perf_counter()
        deadline = start + self.scale.seconds
        await asyncio.gather(*(work(place) for place in range(IN_FLIGHT)))
        seconds = time.perf_counter() - start
        usage = meter.read()
        faults = failure_sentences(failures)
        if twice := sum(1 for times in claimed.values() if times > 1):
            faults.append(f"{twice} keys were handed out more than once")
        return Sample({"key-claims": len(claimed) / seconds}, {"claimed": len(claimed)}, faults, usage)


async def _claim(user: Account, user_id: str, device_id: str) -> list[str]:
    wanted = {"one_time_keys": {user_id: {device_id: ALGORITHM}}}
    answer, _ = await user.call("POST", "/v3/keys/claim", wanted)
    return list(answer["one_time_keys"].get(user_id, {}).get(device_id, {}))
