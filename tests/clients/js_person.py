"""A matrix-js-sdk client in a process of its own (js_person.mjs, or in a browser, browser_person.mjs), asked to do things and
looked at from Python.

Invariant: an operation that fails in JavaScript fails here, with its stack; nothing waits for ever.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from node_environment import installed, node

LINE = 1 << 24
SECONDS = 60.0


class JsPerson:
    """The process, from enter to exit."""

    script = "js_person.mjs"

    def __init__(self, log: Path) -> None:
        self.user_id = ""
        self._log = log
        self._numbers = itertools.count()
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        script = await asyncio.to_thread(installed, self.script)
        with self._log.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(str(node()), str(script)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                limit=LINE,
            )
        self._reader = asyncio.create_task(self._read())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None and self._process.stdin is not None and self._reader is not None
        self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), 10)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        await self._reader

    async def do(self, op: str, **arguments: Any) -> Any:
        """One operation of the script; its result."""
        assert self._process is not None and self._process.stdin is not None
        number = next(self._numbers)
        self._waiting[number] = future = asyncio.get_running_loop().create_future()
        self._process.stdin.write(json.dumps({"id": number, "op": op, **arguments}).encode() + b"\n")
        await self._process.stdin.drain()
        try:
            return await asyncio.wait_for(future, SECONDS)
        except TimeoutError:
            raise AssertionError(f"{op} {arguments} takes too long:\n{self._log.read_text()[-3000:]}") from None

    async def until(self, room_id: str, condition: Callable[[Any], bool], seconds: float = SECONDS) -> Any:
        """Look at a room until it is as wanted; what was seen. AssertionError with the last look."""
        seen = None
        end = asyncio.get_running_loop().time() + seconds
        while asyncio.get_running_loop().time() < end:
            seen = await self.do("look", roomId=room_id)
            if seen is not None and condition(seen):
                return seen
            await asyncio.sleep(0.05)
        raise AssertionError(f"never came: {json.dumps(seen, indent=1)}")

    async def until_told(self, op: str, condition: Callable[[Any], bool], **arguments: Any) -> Any:
        """Ask until the answer is as wanted; the answer. AssertionError with the last one."""
        answer = None
        end = asyncio.get_running_loop().time() + SECONDS
        while asyncio.get_running_loop().time() < end:
            answer = await self.do(op, **arguments)
            if condition(answer):
                return answer
            await asyncio.sleep(0.1)
        raise AssertionError(f"{op} never came: {answer}")

    async def _read(self) -> None:
        assert self._process is not None and self._process.stdout is not None
        while line := await self._process.stdout.readline():
            answer = json.loads(line)
            future = self._waiting.pop(answer["id"])
            if future.done():
                # Whoever asked has given up.
                continue
            if "error" in answer:
                future.set_exception(AssertionError(answer["error"]))
            else:
                future.set_result(answer["result"])
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(AssertionError(f"node is gone:\n{self._log.read_text()[-3000:]}"))


def opened(seen: Any) -> set[str]:
    """The texts, in a look at a room, that were encrypted and can be read."""
    return {e["content"].get("body", "") for e in seen["timeline"] if e["encrypted"] and not e["sealed"]}


class BrowserPerson(JsPerson):
    """The same library in headless Chromium, behind a page with forms; `look` tells what the page shows."""

    script = "browser_person.mjs"
