"""Synapse's opinion of events and of their authorisation. Runs where Synapse is and nothing of ours.

Reads JSON lines {"room_version", "pdu", "state": [PDU, …], "auth": [PDU, …]} and writes one for each: the event's id, its
content hash, its redacted form, whether it passes the rules that depend on `state`, and those that depend on its auth
events alone (`auth` holds them, and in version 12 the create event).
"""

from __future__ import annotations

import hashlib
import json
import sys
from typing import Any

import synapse.event_auth as event_auth
from synapse.api.errors import SynapseError
from synapse.api.room_versions import KNOWN_ROOM_VERSIONS
from synapse.crypto.event_signing import compute_content_hash
from synapse.events import make_event_from_dict
from synapse.synapse_rust.events import redact_event_dict
from unpaddedbase64 import encode_base64


class Store:
    """No events but those that are handed over with the question."""

    def __init__(self, events: dict[str, Any]) -> None:
        self.events = events

    async def get_events(self, event_ids: Any, *args: object, **kwargs: object) -> dict[str, Any]:
        return {event_id: self.events[event_id] for event_id in event_ids if event_id in self.events}


def passes_on_state(event: Any, state: list[Any]) -> bool:
    try:
        event_auth.check_state_dependent_auth_rules(event, state)
    except (SynapseError, ValueError, TypeError, AttributeError, KeyError):
        # What is not a refusal fails on malformed input, and the event is not accepted either.
        return False
    return True


def passes_alone(event: Any, auth: list[Any]) -> bool:
    check = event_auth.check_state_independent_auth_rules(Store({each.event_id: each for each in auth}), event)
    try:
        check.send(None)
    except StopIteration:
        return True
    except (SynapseError, ValueError, TypeError, AttributeError, KeyError, RuntimeError):
        return False
    raise AssertionError("Synapse waits for something.")


def main() -> None:
    for line in sys.stdin:
        asked = json.loads(line)
        version = KNOWN_ROOM_VERSIONS[asked["room_version"]]

        def read(pdu: dict[str, Any], version: Any = version) -> Any:
            return make_event_from_dict(pdu, room_version=version)

        event = read(asked["pdu"])
        _, content_hash = compute_content_hash(asked["pdu"], hashlib.sha256)
        redacted = redact_event_dict(version, asked["pdu"])
        redacted.pop("unsigned", None)
        answer = {
            "event_id": event.event_id,
            "content_hash": encode_base64(content_hash),
            "redacted": redacted,
            "on_state": passes_on_state(event, [read(pdu) for pdu in asked["state"]]),
            "alone": passes_alone(event, [read(pdu) for pdu in asked["auth"]]),
        }
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
