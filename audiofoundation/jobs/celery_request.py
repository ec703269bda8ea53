"""A worker's request whose failed acknowledgement makes the worker connect anew."""

from celery.worker.request import Request


class AcknowledgingRequest(Request):  # type: ignore[misc]
    """Acknowledges in the event loop and lets a connection error out.

    Celery 5.7 logs "Couldn't ack" and goes on. With one message per child the queue then counts as full
    for ever, nothing is read from the connection any more, so its loss is never noticed and the worker
    stands still. This happens whenever the queue server dies just as a job ends.
    """

    acknowledged: bool

    def acknowledge(self) -> None:
        """Acknowledge the message. Raises one of the transport's connection errors."""
        if not self.acknowledged:
            self.acknowledged = True
            self._message.ack()
