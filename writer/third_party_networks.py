"""Look-ups in third-party networks: there are those that application services bridge, and none is bridged here.

Source: client-server API, "Third-party Lookups".
"""

from __future__ import annotations

from falcon.asgi import Request, Response

from matrix.errors import not_found


class ThirdPartyNetworks:
    """/thirdparty/protocols, /protocol/{protocol}, /location and /user, each with and without /{protocol}."""

    async def on_get_protocols(self, req: Request, resp: Response) -> None:
        """The protocols there are."""
        resp.media = {}

    async def on_get_protocol(self, req: Request, resp: Response, protocol: str) -> None:
        """What is known of a protocol."""
        raise not_found("This server bridges no such network.")

    async def on_get_location_of(self, req: Request, resp: Response, protocol: str) -> None:
        """Rooms that lead to a place in a network."""
        raise not_found("This server bridges no such network.")

    async def on_get_user_of(self, req: Request, resp: Response, protocol: str) -> None:
        """Users that stand for somebody in a network."""
        raise not_found("This server bridges no such network.")

    async def on_get_location(self, req: Request, resp: Response) -> None:
        """Places that a room alias leads to."""
        req.get_param("alias", required=True)
        raise not_found("The alias leads to no other network.")

    async def on_get_user(self, req: Request, resp: Response) -> None:
        """Whom in other networks a user stands for."""
        req.get_param("userid", required=True)
        raise not_found("The user is of no other network.")
