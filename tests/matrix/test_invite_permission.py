from typing import Any

import pytest

from matrix.invite_permission import INVITE_PERMISSION, INVITE_PERMISSION_UNSTABLE, InvitePermission, Permission

BOB, EVE = "@bob:good.example", "@eve:evil.example"


def of(inviter: str, *, stable: Any = None, **lists: Any) -> Permission:
    contents = {INVITE_PERMISSION: stable, INVITE_PERMISSION_UNSTABLE: lists}
    return InvitePermission.parse(contents).of(inviter)


def test_who_blocks_all_invitations_takes_none() -> None:
    assert of(BOB, stable={"default_action": "block"}) is Permission.BLOCK


@pytest.mark.parametrize("stable", [None, {}, {"default_action": "allow"}, {"default_action": 7}, "block", []])
def test_what_is_not_understood_lets_everybody_in(stable: Any) -> None:
    assert of(BOB, stable=stable) is Permission.ALLOW


@pytest.mark.parametrize(
    ("lists", "expected"),
    [
        ({"blocked_users": [BOB]}, Permission.BLOCK),
        ({"ignored_users": [BOB]}, Permission.IGNORE),
        ({"blocked_users": [EVE]}, Permission.ALLOW),
        ({"blocked_servers": ["good.example"]}, Permission.BLOCK),
        ({"ignored_servers": ["*.example"]}, Permission.IGNORE),
        ({"blocked_users": ["@b?b:*"]}, Permission.BLOCK),
        # The first list that names the inviter counts: users before servers, what allows before what does not.
        ({"allowed_users": [BOB], "blocked_users": [BOB], "blocked_servers": ["*"]}, Permission.ALLOW),
        ({"blocked_users": [BOB], "allowed_servers": ["good.example"]}, Permission.BLOCK),
        ({"ignored_users": [BOB], "blocked_users": [BOB]}, Permission.IGNORE),
        ({"allowed_users": None, "blocked_users": None}, Permission.ALLOW),
        ({"blocked_users": [7, None, {}]}, Permission.ALLOW),
        ({"blocked_users": BOB}, Permission.ALLOW),
    ],
)
def test_lists_of_users_and_servers_are_asked_in_their_order(lists: dict[str, Any], expected: Permission) -> None:
    assert of(BOB, **lists) is expected


def test_who_is_on_a_list_is_allowed_though_all_others_are_blocked() -> None:
    assert of(BOB, stable={"default_action": "block"}, allowed_users=[BOB]) is Permission.ALLOW
    assert of(EVE, stable={"default_action": "block"}, allowed_users=[BOB]) is Permission.BLOCK
