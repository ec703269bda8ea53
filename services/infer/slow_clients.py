"""Clients that do not read: what they hold is let go."""

import asyncio

from starlette.types import Message, Send

SEND_TIMEOUT_S = 10.0


class ClientTooSlow(Exception):
    """The client did not take a frame in time."""


def patient(send: Send) -> Send:
    """Return a `send` that waits for the client's buffer to have room, but not for ever; then ClientTooSlow."""

    async def send_in_time(message: Message) -> None:
        try:
            async with asyncio.timeout(SEND_TIMEOUT_S):
                await send(message)
        except TimeoutError as error:
            raise ClientTooSlow from error

    return send_in_time
