from api_server import Api


async def test_somebody_registers_makes_a_room_and_writes_in_it(api: Api) -> None:
    alice = await api.register()
    room_id = await alice.create_room(name="A room", topic="talk", preset="public_chat")
    event_id = await alice.send(room_id)
    assert event_id.startswith("$")
    bob = await api.register()
    assert (await bob.post(f"join/{room_id}", {})).ok() == {"room_id": room_id}
    await bob.send(room_id)
