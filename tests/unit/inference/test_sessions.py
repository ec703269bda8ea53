"""Places for sessions: bounded in number and in bytes, free again whatever happens."""

import pytest

from audiofoundation.errors import Overloaded
from audiofoundation.inference.sessions import OpenSessions


def test_one_session_too_many_is_refused_until_another_ends() -> None:
    sessions = OpenSessions(most=1, max_held_bytes=100)
    with sessions.place(), pytest.raises(Overloaded) as refusal, sessions.place():
        pass
    assert refusal.value.retry_after_s
    with sessions.place():
        assert sessions.num_open == 1
    assert sessions.num_open == 0


def test_recordings_of_all_sessions_share_the_bytes() -> None:
    sessions = OpenSessions(most=2, max_held_bytes=100)
    with sessions.place() as first, sessions.place() as second:
        first.add(60)
        with pytest.raises(Overloaded):
            second.add(50)
        first.release(30)
        second.add(50)
        assert sessions.num_held_bytes == 80
    assert sessions.num_held_bytes == 0


def test_a_session_that_fails_leaves_nothing_behind() -> None:
    sessions = OpenSessions(most=1, max_held_bytes=100)

    def fail() -> None:
        with sessions.place() as held:
            held.add(10)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert (sessions.num_open, sessions.num_held_bytes) == (0, 0)
