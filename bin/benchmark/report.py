"""The table on the terminal and the JSON file: each figure of each server, the ratio, the target, and whether it is met.

A figure with a fault is printed with its fault; a missing one is printed with its reason. Nothing is left out.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson

from bin.benchmark.row import Figure
from bin.benchmark.run import PEER, Outcome, Results


def number(value: float | None) -> str:
    """Three significant digits, without an exponent."""
    if value is None:
        return "n/a"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def cell(outcome: Outcome, figure: Figure) -> str:
    value = outcome.value(figure.key)
    if value is None:
        return "ERROR" if outcome.faults() else "n/a"
    return f"{number(value)} {figure.unit}".strip() + (" !" if outcome.faults() else "")


def ratio(ours: float | None, peers: float | None) -> str:
    if ours is None or not peers:
        return ""
    share = ours / peers
    return f"{share:.2f}×" if share >= 1 else f"1/{1 / share:.1f}" if share > 0 else "0"


def verdict(figure: Figure, outcome: Outcome | None, peers: float | None) -> str:
    """'met', 'MISSED', or '' when there is no target or nothing to compare."""
    ours = None if outcome is None else outcome.value(figure.key)
    if ours is None or outcome is None:
        return ""
    met = figure.met(ours, peers)
    if met is None:
        return ""
    return "met" if met and not outcome.faults() else "MISSED"


def usage(outcome: Outcome | None) -> str:
    """The generator's processor time as shares of one core, a figure per round."""
    if outcome is None:
        return ""
    shares = [f"{100 * sample.usage.generator:.0f}" for sample in outcome.samples if sample.usage]
    return "/".join(shares)


def lines(results: Results) -> list[str]:
    """The table, its columns aligned, then faults, requests and the machine."""
    names = results.servers
    ours = next((name for name in names if name != PEER), None)
    compared = ours is not None and PEER in names
    head = ["work", *names, *(["ratio"] if compared else []), "target", "", "generator % of a core"]
    body: list[list[str]] = []
    for row, figures in results.figures.items():
        outcomes = results.outcomes[row]
        for figure in figures:
            peers = outcomes[PEER].value(figure.key) if PEER in names else None
            mine = outcomes[ours] if ours is not None else None
            body.append(
                [
                    figure.title,
                    *(cell(outcomes[name], figure) for name in names),
                    *([ratio(mine.value(figure.key) if mine else None, peers)] if compared else []),
                    figure.target(),
                    verdict(figure, mine, peers),
                    " ".join(filter(None, (usage(outcomes[name]) for name in names))),
                ]
            )
    widths = [max(len(line[column]) for line in [head, *body]) for column in range(len(head))]
    text = [
        "  ".join(value.ljust(width) for value, width in zip(line, widths, strict=True)).rstrip()
        for line in [head, *body]
    ]
    text.insert(1, "  ".join("─" * width for width in widths))
    found: dict[str, list[str]] = {}
    for row, outcomes in results.outcomes.items():
        for name, outcome in outcomes.items():
            for fault in dict.fromkeys(outcome.faults()):
                found.setdefault(f"{name}: {fault}", []).append(row)
    text += [f"! {', '.join(rows)} · {fault}" for fault, rows in found.items()]
    for name, counts in results.requests.items():
        statuses = ", ".join(f"{count:,} × {status}" for status, count in sorted(counts["statuses"].items()))
        text.append(
            f"{name}: {counts['sent']:,} requests sent, {counts['answered']:,} answered ({statuses}), "
            f"{counts['failed']:,} failed, {counts['abandoned']:,} abandoned at the end of a poll, none repeated"
        )
    about = results.machine
    text.append(
        f"{about['processor']}, {about['cores']} cores, {about['memory_mib']:,} MiB, Linux {about['kernel']}, "
        f"{about['file_system']}, load {about['load_at_start']} at start; {about.get('postgres_version', 'no PostgreSQL of ours')}"
    )
    if about["file_system"] in ("tmpfs", "ramfs"):
        text.append("! the databases are on a memory file system: NOTHING HERE IS DURABLE")
    return text


def document(results: Results) -> dict[str, Any]:
    """The whole run as JSON's types: figures with medians and verdicts, and every round with its particulars."""
    ours = next((name for name in results.servers if name != PEER), None)
    rows: dict[str, Any] = {}
    for row, figures in results.figures.items():
        outcomes = results.outcomes[row]
        rows[row] = {
            "figures": {
                figure.key: {
                    **asdict(figure),
                    "values": {name: outcomes[name].value(figure.key) for name in results.servers},
                    "verdict": verdict(
                        figure,
                        outcomes[ours] if ours is not None else None,
                        outcomes[PEER].value(figure.key) if PEER in results.servers else None,
                    ),
                }
                for figure in figures
            },
            "servers": {
                name: {"error": outcome.error, "rounds": [asdict(sample) for sample in outcome.samples]}
                for name, outcome in outcomes.items()
            },
        }
    return {"machine": results.machine, "requests": results.requests, "rows": rows}


def write(results: Results, folder: Path) -> Path:
    """Writes bench.json; its path."""
    path = folder / "bench.json"
    path.write_bytes(orjson.dumps(document(results), option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS))
    return path
