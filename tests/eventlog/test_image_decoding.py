"""Decoders: killed when their time is over, held to their memory, with nothing of ours at hand."""

from __future__ import annotations

import io
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from PIL import Image

from eventlog import image_decoder, image_decoding
from eventlog.configuration import load_settings
from eventlog.image_decoding import Decoders
from eventlog.settings import Media
from matrix.errors import MatrixError

MEDIA: Media = load_settings({}).media


async def once(data: bytes) -> AsyncIterator[bytes]:
    yield data


def program(monkeypatch: pytest.MonkeyPatch, folder: Path, text: str) -> None:
    """Lets another program decode."""
    path = folder / "decoder.py"
    path.write_text(text)
    monkeypatch.setattr(image_decoding, "_PROGRAM", path)


@pytest.mark.slow
async def test_a_decoder_whose_time_is_over_is_killed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program(
        monkeypatch,
        tmp_path,
        f"import os, time\nopen({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\ntime.sleep(600)",
    )
    found = await Decoders(replace(MEDIA, decoder_seconds=8.0)).run("measure", once(b"x"))
    assert found.error == "too_large"
    assert not psutil.pid_exists(int((tmp_path / "pid").read_text()))


@pytest.mark.slow
async def test_a_decoder_that_dies_or_talks_nonsense_has_found_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for text in ("import os; os.abort()", "", "print('no line end', end='')", "print('{}'); print('x' * 3_000_000)"):
        program(monkeypatch, tmp_path, text)
        # The last one says more than anybody reads, and takes nothing: its time has to be over.
        hasty = Decoders(replace(MEDIA, decoder_seconds=2.0))
        assert (await hasty.run("measure", once(b"x" * 1_000_000))).error == "too_large"


async def test_a_decoder_has_no_environment_and_no_standard_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("WALDEN_DATABASE_DSN", "secret")
    program(
        monkeypatch,
        tmp_path,
        "import json, os; print(json.dumps({'env': dict(os.environ), 'fds': os.listdir('/proc/self/fd')}))",
    )
    found = await Decoders(MEDIA).run("measure", once(b""))
    assert {name for name in found.answer["env"] if not name.startswith("LC_")} == set()
    # Its three, and the one that lists them.
    assert len(found.answer["fds"]) == 4


@pytest.mark.slow
async def test_an_image_that_takes_more_memory_than_there_may_be_is_too_large() -> None:
    data = io.BytesIO()
    Image.new("RGB", (8_000, 8_000)).save(data, "PNG", compress_level=1)
    options: dict[str, Any] = {"width": 32, "height": 32, "method": "scale", "animated": False}
    narrow = replace(MEDIA, decoder_memory_bytes=200_000_000, max_image_pixels=100_000_000)
    assert (await Decoders(narrow).run("thumbnail", once(data.getvalue()), **options)).error == "too_large"
    wide = replace(narrow, decoder_memory_bytes=2_000_000_000)
    assert (await Decoders(wide).run("thumbnail", once(data.getvalue()), **options)).error is None
    few = replace(wide, max_image_pixels=1_000_000)
    assert (await Decoders(few).run("thumbnail", once(data.getvalue()), **options)).error == "too_large"


async def test_so_many_wait_for_a_decoder_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_decoding, "MOST_WAITING", 0)
    with pytest.raises(MatrixError) as refusal:
        await Decoders(MEDIA).run("measure", once(b""))
    assert refusal.value.status == 429


@pytest.mark.parametrize(("seconds", "frames"), [(1_000_000, 12), (0, 2)])
def test_an_animation_that_takes_too_long_ends_earlier(seconds: int, frames: int) -> None:
    pictures = [Image.new("RGB", (200, 200), (20 * number, 0, 0)) for number in range(12)]
    data = io.BytesIO()
    pictures[0].save(data, "GIF", save_all=True, append_images=pictures[1:])
    asked = {"width": 32, "height": 32, "method": "scale", "animated": True, "seconds": seconds, "pixels": 1_000_000}
    said, made = image_decoder.thumbnail(io.BytesIO(data.getvalue()), asked)
    assert said == {"content_type": "image/webp"}
    assert getattr(Image.open(io.BytesIO(made)), "n_frames", 1) == frames


def test_a_decoder_imports_nothing_of_ours() -> None:
    text = (Path(image_decoding.__file__).parent / "image_decoder.py").read_text(encoding="utf-8")
    imported = re.findall(r"^\s*(?:from|import) (\w+)", text, re.MULTILINE)
    assert "PIL" in imported and not {"matrix", "eventlog", "writer", "roomserver", "readers", "bin"} & set(imported)
