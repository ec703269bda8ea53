"""Turns: one process in each interval, whoever asks."""

import time
from concurrent.futures import ThreadPoolExecutor

from sqlalchemy import Engine

from audiofoundation.catalog.engine import read_session, write_session
from audiofoundation.catalog.tables import Lease
from audiofoundation.jobs.role import come_again, take_turn

NAME = "sweeping the yard"
DAY_S = 24 * 3600.0


def due_in_s(engine: Engine) -> float:
    with read_session(engine) as session:
        return session.get_one(Lease, NAME).lease_until - time.time()


def set_due(engine: Engine, in_s: float) -> None:
    with write_session(engine) as session:
        session.get_one(Lease, NAME).lease_until = time.time() + in_s


def test_the_first_turn_comes_an_interval_after_the_first_question(engine: Engine) -> None:
    assert not take_turn(engine, NAME, every_s=DAY_S)
    assert DAY_S - 10 < due_in_s(engine) <= DAY_S
    assert not take_turn(engine, NAME, every_s=DAY_S)


def test_a_turn_that_is_due_is_taken_once(engine: Engine) -> None:
    take_turn(engine, NAME, every_s=DAY_S)
    set_due(engine, -1.0)
    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(lambda _: take_turn(engine, NAME, every_s=DAY_S), range(8)))
    assert taken.count(True) == 1
    assert DAY_S - 10 < due_in_s(engine) <= DAY_S


def test_a_shorter_interval_holds_at_once(engine: Engine) -> None:
    take_turn(engine, NAME, every_s=DAY_S)
    assert not take_turn(engine, NAME, every_s=60.0)
    assert 50 < due_in_s(engine) <= 60
    assert not take_turn(engine, NAME, every_s=DAY_S), "a longer one after the next turn"
    assert due_in_s(engine) <= 60


def test_a_turn_that_came_to_nothing_comes_again_sooner(engine: Engine) -> None:
    take_turn(engine, NAME, every_s=DAY_S)
    come_again(engine, NAME, in_s=0.0)
    assert take_turn(engine, NAME, every_s=DAY_S)
