"""The problem cases of the specification, of MSC4297, and the classic ones: each has the outcome that it must have.

What each is about stands in its file in `fixtures/state_resolution`, and its name is a sentence.
"""

from __future__ import annotations

import pytest
from resolution_scenarios import Scenario, outcomes

from matrix.auth_rules import check_against_state, check_event_alone
from matrix.state_resolution import resolve


@pytest.mark.parametrize(("name", "room_version"), outcomes())
def test_the_scenario_has_its_outcome(name: str, room_version: str) -> None:
    scenario = Scenario(name, room_version)
    resolution = resolve(scenario.room_version, scenario.states, scenario.events)
    names = {event_id: name for name, event_id in scenario.ids.items()}
    assert {key: names.get(resolution.state.get(key, "")) for key in scenario.resolved} == {
        key: names.get(event_id or "") for key, event_id in scenario.resolved.items()
    }
    assert {names[event_id] for event_id in resolution.refused} == set(scenario.expected["refused"])
    assert all(resolution.refused.values())


@pytest.mark.parametrize(("name", "room_version"), outcomes())
def test_every_event_of_the_scenario_is_allowed_where_it_was_made(name: str, room_version: str) -> None:
    scenario = Scenario(name, room_version)
    for event in scenario.events.values():
        check_event_alone(event, scenario.events)
        state = {
            (auth_event.type, auth_event.state_key or ""): auth_event
            for auth_event in (scenario.events[event_id] for event_id in event.auth_events)
        }
        state["m.room.create", ""] = scenario.events[scenario.ids["create"]]
        check_against_state(event, state)
