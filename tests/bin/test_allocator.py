"""What a burst took is given back although something was kept of it."""

import subprocess
import sys

PROGRAM = """
import asyncio
from bin import allocator

def kilobytes():
    with open("/proc/self/smaps_rollup") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("Private_Dirty"))

async def main():
    allocator.keep_little()
    allocator.TRIM_SECONDS, allocator.WORTH_SECONDS = 0.05, 0.0
    before = kilobytes()
    # Each in a page of its own; what is kept lies after all that is freed.
    blocks = [bytes(20_000) for _ in range(2_000)]
    kept = bytes(20_000)
    del blocks
    held = kilobytes()
    allocator.give_back(asyncio.get_running_loop())
    async with asyncio.timeout(60):
        while kilobytes() - before > 8_000:
            await asyncio.sleep(0.05)
    print(held - before, len(kept))

asyncio.run(main())
"""


def test_what_was_freed_below_something_kept_is_given_back() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    held, kept = map(int, done.stdout.split())
    assert held > 30_000, "nothing was held: the test shows nothing"
    assert kept == 20_000
