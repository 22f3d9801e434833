"""Decodes what strangers made: images, and pages of the web. Runs as a process of its own and imports nothing of ours.

Invariant: reads its standard input, writes its standard output, opens nothing, and has bounds on memory, time and pixels that the
kernel keeps. Whoever breaks in finds an empty environment and no rights.

Told on the command line as a JSON object what to do; answers with a line of JSON, and with the bytes of what it made.
"""

from __future__ import annotations

import io
import json
import resource
import sys
import time
import warnings
from html.parser import HTMLParser
from typing import IO, Any

MOST_OUTPUT = 900_000
"""Bytes of a thumbnail."""
MOST_FRAMES = 120
QUALITIES = (80, 65, 45, 25)
FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "AVIF", "BMP", "TIFF", "ICO")
"""What is decoded; Pillow knows more, of which some start other programs."""
TYPES = {"PNG": "image/png", "JPEG": "image/jpeg", "GIF": "image/gif", "WEBP": "image/webp"}
"""What browsers show, and the specification lets a thumbnail be."""
MOST_TEXT = 1_000
"""Characters of what a page says of itself."""


class Unfit(Exception):
    """It cannot be decoded, or is too large: `reason` is `undecodable` or `too_large`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def confine(task: dict[str, Any]) -> None:
    """Bounds that this process cannot widen again."""
    seconds = max(1, int(task["seconds"]) + 1)
    for kind, value in (
        (resource.RLIMIT_AS, int(task["memory"])),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 64),
    ):
        hard = resource.getrlimit(kind)[1]
        bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (bound, bound))


def import_pillow() -> None:
    """Loads what decodes FORMATS, and no more of Pillow."""
    from importlib import import_module

    for name in (
        "Image",
        "ImageOps",
        *(f"{kind[0]}{kind[1:].lower()}ImagePlugin" for kind in FORMATS if kind != "WEBP"),
    ):
        import_module(f"PIL.{name}")
    import_module("PIL.WebPImagePlugin")


def opened(source: IO[bytes], task: dict[str, Any]) -> Any:
    """The image, its size checked and nothing of it decoded yet. Raises Unfit."""
    from PIL import Image

    warnings.simplefilter("ignore")
    # Ours is the only bound: Pillow raises at twice its own.
    Image.MAX_IMAGE_PIXELS = int(task["pixels"])
    try:
        image = Image.open(source, formats=FORMATS)
    except Image.DecompressionBombError:
        raise Unfit("too_large") from None
    width, height = image.size
    if width * height > task["pixels"]:
        raise Unfit("too_large")
    if width < 1 or height < 1:
        raise Unfit("undecodable")
    return image


def turned(image: Any) -> Any:
    """The image as its camera was held."""
    from PIL import ImageOps

    return ImageOps.exif_transpose(image)


def fitted(size: tuple[int, int], width: int, height: int) -> tuple[int, int] | None:
    """The size that covers what is asked for, in the image's proportions. None: the image is no larger than that."""
    scale = max(width / size[0], height / size[1])
    if scale >= 1:
        return None
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def frame_of(image: Any, size: tuple[int, int], box: tuple[int, int], method: str) -> Any:
    """One frame in the size wanted; cropped in the middle."""
    from PIL import Image

    if image.mode.startswith("I;16"):
        image = image.convert("I").point(lambda value: value * (1 / 256)).convert("L")
    mode = "RGBA" if "A" in image.getbands() or "transparency" in image.info else "RGB"
    small = image.convert(mode).resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)
    if method == "crop":
        left, top = (size[0] - box[0]) // 2, (size[1] - box[1]) // 2
        small = small.crop((left, top, left + min(box[0], size[0]), top + min(box[1], size[1])))
    return small


def thumbnail(source: IO[bytes], task: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    """A thumbnail, or word that the image is no larger (`original`). Raises Unfit."""
    image = opened(source, task)
    box, method = (int(task["width"]), int(task["height"])), str(task["method"])
    frames = int(getattr(image, "n_frames", 1) or 1)
    moving = bool(getattr(image, "is_animated", False)) and frames > 1
    upright = image.getexif().get(0x0112, 1) in (1, None)
    size = fitted(turned_size(image), *box)
    if size is None and image.format in TYPES and (not moving or task["animated"]):
        return {"original": True, "content_type": TYPES[image.format]}, b""
    if size is None:
        # It is made again for its format, or because it must stand still.
        size = turned_size(image)
        method = "scale"
    if task["animated"] and moving:
        found = animation(image, size, box, method, min(frames, MOST_FRAMES), float(task["seconds"]))
        if found is not None:
            return {"content_type": "image/webp"}, found
        image.seek(0)
    if image.format == "JPEG":
        # Decodes a smaller one at once, where that is enough.
        image.draft("RGB", (size[0] * 2, size[1] * 2) if upright else (max(size) * 2, max(size) * 2))
    small = frame_of(turned(image), size, box, method)
    return still(small)


def turned_size(image: Any) -> tuple[int, int]:
    """Width and height as the camera was held."""
    width, height = image.size
    return (height, width) if image.getexif().get(0x0112, 1) in (5, 6, 7, 8) else (width, height)


def still(image: Any) -> tuple[dict[str, Any], bytes]:
    """As PNG where it is transparent, as JPEG otherwise; as WebP where that is too long."""
    tries: list[tuple[str, dict[str, Any]]] = [("PNG", {})] if image.mode == "RGBA" else []
    if image.mode != "RGBA":
        tries += [("JPEG", {"quality": quality}) for quality in QUALITIES]
    tries += [("WEBP", {"quality": quality, "method": 2}) for quality in QUALITIES]
    for kind, options in tries:
        data = io.BytesIO()
        image.save(data, kind, **options)
        if data.tell() <= MOST_OUTPUT:
            return {"content_type": TYPES[kind]}, data.getvalue()
    raise Unfit("too_large")


def animation(
    image: Any, size: tuple[int, int], box: tuple[int, int], method: str, frames: int, seconds: float
) -> bytes | None:
    """As WebP, with as many frames as half of the time suffices for. None: it is too long."""
    pictures: list[Any] = []
    durations: list[int] = []
    end = time.monotonic() + seconds / 2
    for number in range(frames):
        if len(pictures) > 1 and time.monotonic() > end:
            break
        image.seek(number)
        durations.append(max(10, min(int(image.info.get("duration") or 100), 60_000)))
        pictures.append(frame_of(image, size, box, method).convert("RGBA"))
    for quality in QUALITIES[1:]:
        data = io.BytesIO()
        pictures[0].save(
            data,
            "WEBP",
            save_all=True,
            append_images=pictures[1:],
            duration=durations,
            loop=0,
            quality=quality,
            method=0,
        )
        if data.tell() <= MOST_OUTPUT:
            return data.getvalue()
    return None


def measure(source: IO[bytes], task: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    """Type and size of an image. Raises Unfit."""
    image = opened(source, task)
    width, height = turned_size(image)
    if image.format not in TYPES:
        raise Unfit("undecodable")
    return {"content_type": TYPES[image.format], "width": width, "height": height}, b""


class Page(HTMLParser):
    """What a page says of itself: OpenGraph properties, title, description, pictures."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.properties: dict[str, str] = {}
        self.names: dict[str, str] = {}
        self.titles: list[str] = []
        self.icon = ""
        self.base = ""
        self._in_title = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Notes what <meta>, <link>, <base> and <title> say."""
        said = {name.lower(): (value or "") for name, value in attrs}
        if tag == "meta":
            content = said.get("content", "").strip()[:MOST_TEXT]
            name = (said.get("property") or said.get("name") or "").strip().lower()
            if content and name.startswith(("og:", "twitter:")) and len(self.properties) < 60:
                self.properties.setdefault(name[:60], content)
            elif content and name:
                self.names.setdefault(name[:60], content)
        elif tag == "title" and not self.titles:
            self._in_title = True
        elif tag == "link" and said.get("rel", "").lower() in ("image_src", "apple-touch-icon"):
            self.icon = self.icon or said.get("href", "")[:2000]
        elif tag == "base":
            self.base = self.base or said.get("href", "")[:2000]

    def handle_endtag(self, tag: str) -> None:
        """The end of <title>."""
        if tag == "title":
            self._in_title = False

    def handle_data(self, data: str) -> None:
        """The text of <title>."""
        if self._in_title and sum(map(len, self.titles)) < MOST_TEXT:
            self.titles.append(data)


def page(source: IO[bytes], task: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    """The OpenGraph properties of a page, with what stands for those that it lacks, and what its links are relative to."""
    raw = source.read()
    parser = Page()
    parser.feed(text_of(raw, str(task.get("charset") or "")))
    found = {name: value for name, value in parser.properties.items() if name.startswith("og:")}
    title = " ".join("".join(parser.titles).split())[:MOST_TEXT]
    instead = {
        "og:title": (parser.properties.get("twitter:title"), title),
        "og:description": (parser.properties.get("twitter:description"), parser.names.get("description")),
        "og:image": (parser.properties.get("twitter:image"), parser.icon),
    }
    for name, others in instead.items():
        value = next((other for other in others if other), None)
        if value and name not in found:
            found[name] = value
    return {"properties": found, "base": parser.base}, b""


def text_of(raw: bytes, charset: str) -> str:
    """The page's text: by its byte order mark, its HTTP header, its own word, or UTF-8."""
    import codecs
    import re

    for mark, name in (
        (codecs.BOM_UTF8, "utf-8-sig"),
        (codecs.BOM_UTF16_LE, "utf-16"),
        (codecs.BOM_UTF16_BE, "utf-16"),
    ):
        if raw.startswith(mark):
            return raw.decode(name, "replace")
    match = re.search(rb"""<meta[^>]{0,200}charset\s*=\s*["']?\s*([A-Za-z0-9_.:-]{1,40})""", raw[:4096], re.IGNORECASE)
    for name in (charset, match[1].decode("ascii") if match else "", "utf-8"):
        try:
            if name and codecs.lookup(name).name not in ("idna", "punycode", "unicode_escape", "raw_unicode_escape"):
                return raw.decode(name, "replace")
        except (LookupError, UnicodeError, ValueError):
            continue
    return raw.decode("latin-1")


TASKS = {"thumbnail": thumbnail, "measure": measure, "page": page}


def main() -> None:
    """Does one thing and ends."""
    task: dict[str, Any] = json.loads(sys.argv[1])
    if task["do"] != "page":
        # Without `site`, which takes longer than a thumbnail. What is loaded is loaded before there are bounds on it.
        sys.path.append(task["packages"])
        import_pillow()
    confine(task)
    try:
        answer, data = TASKS[task["do"]](io.BytesIO(sys.stdin.buffer.read()), task)
    except Unfit as error:
        answer, data = {"error": error.reason}, b""
    except MemoryError:
        answer, data = {"error": "too_large"}, b""
    except Exception:
        # Pillow raises anything at all for what is no image.
        answer, data = {"error": "undecodable"}, b""
    sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n" + data)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
