"""Pictures of a run, made from its JSON document alone: ratios against targets, and the spread of delivery times."""

from pathlib import Path
from typing import Any

PEER = "synapse"


def draw(document: dict[str, Any], folder: Path) -> list[Path]:
    """Writes the PNG files that the document has the data for; their paths. ImportError without the `bench` extra."""
    import matplotlib

    matplotlib.use("Agg")
    return [
        path for path in (_ratios(document, folder), _deliveries(document, folder), _usage(document, folder)) if path
    ]


def _ours(document: dict[str, Any]) -> str | None:
    names: list[str] = [name for row in document["rows"].values() for name in row["servers"] if name != PEER]
    return names[0] if names else None


def _ratios(document: dict[str, Any], folder: Path) -> Path | None:
    """How many times better than Synapse each figure is, on a logarithmic axis, with its target as a mark."""
    from matplotlib import pyplot

    name = _ours(document)
    bars: list[tuple[str, float, float | None]] = []
    for row in document["rows"].values():
        for figure in row["figures"].values():
            ours, peers = figure["values"].get(name), figure["values"].get(PEER)
            if not ours or not peers:
                continue
            better = ours / peers if figure["more_is_better"] else peers / ours
            target = figure["ratio"]
            if target is not None and not figure["more_is_better"]:
                target = 1 / target
            bars.append((figure["title"], better, target))
    if not bars:
        return None
    bars.reverse()
    picture, axes = pyplot.subplots(figsize=(11, 0.45 * len(bars) + 1.5), layout="constrained")
    axes.barh([title for title, _, _ in bars], [better for _, better, _ in bars], color="#3b6ea5", label=name)
    marks = [(index, target) for index, (_, _, target) in enumerate(bars) if target is not None]
    axes.scatter(
        [t for _, t in marks], [i for i, _ in marks], marker="|", s=300, color="black", label="target", zorder=3
    )
    axes.margins(y=0.02)
    axes.axvline(1, color="grey", linewidth=1)
    axes.set_xscale("log")
    axes.set_xlabel("times better than Synapse in the same run")
    axes.legend(loc="lower right")
    path = folder / "ratios.png"
    picture.savefig(path, dpi=120)
    pyplot.close(picture)
    return path


def _deliveries(document: dict[str, Any], folder: Path) -> Path | None:
    """The share of messages that reached a waiting sync within a time."""
    from matplotlib import pyplot

    servers = document["rows"].get("send-to-sync", {}).get("servers", {})
    spread = {
        name: sorted(t for sample in outcome["rounds"] for t in sample["particulars"].get("samples_ms", []))
        for name, outcome in servers.items()
    }
    if not any(spread.values()):
        return None
    picture, axes = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
    for name, times in spread.items():
        if times:
            axes.step(times, [(index + 1) / len(times) for index in range(len(times))], where="post", label=name)
    axes.set_xscale("log")
    axes.set_xlabel("milliseconds from the send to a waiting sync's response")
    axes.set_ylabel("share of messages")
    axes.grid(alpha=0.3)
    axes.legend()
    path = folder / "send-to-sync.png"
    picture.savefig(path, dpi=120)
    pyplot.close(picture)
    return path


def _usage(document: dict[str, Any], folder: Path) -> Path | None:
    """Who used the processor in each row: generator, server, PostgreSQL, everything else on the machine."""
    from matplotlib import pyplot

    bars: list[tuple[str, dict[str, float]]] = []
    parts = ("server", "postgres", "generator", "others")
    for row, content in document["rows"].items():
        for name, outcome in content["servers"].items():
            used = [sample["usage"] for sample in outcome["rounds"] if sample["usage"]]
            if used:
                mean = {part: sum(usage[part] for usage in used) / len(used) for part in parts}
                bars.append((f"{row} · {name}", mean))
    if not bars:
        return None
    bars.reverse()
    picture, axes = pyplot.subplots(figsize=(10, 0.35 * len(bars) + 1.5), layout="constrained")
    left = [0.0] * len(bars)
    for part, colour in zip(parts, ("#3b6ea5", "#7aa6c2", "#d98e04", "#cccccc"), strict=True):
        widths = [mean[part] for _, mean in bars]
        axes.barh([title for title, _ in bars], widths, left=left, color=colour, label=part)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    axes.margins(y=0.02)
    axes.set_xlabel("cores kept busy")
    axes.legend(loc="lower right")
    path = folder / "processor.png"
    picture.savefig(path, dpi=120)
    pyplot.close(picture)
    return path
