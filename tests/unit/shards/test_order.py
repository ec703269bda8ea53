"""The shuffle: complete, bounded, and a function of seed, epoch and position alone."""

import pytest

from audiofoundation.shards.order import Place, ShuffledOrder

SIZES = (7, 3, 0, 11, 5, 9, 1)


def epoch_of(order: ShuffledOrder, epoch: int) -> list[Place]:
    return [order.place(epoch, index) for index in range(order.num_samples)]


@pytest.mark.parametrize("window_shards", [1, 2, 3, 7, 50])
def test_an_epoch_holds_every_sample_once(window_shards: int) -> None:
    order = ShuffledOrder(SIZES, seed=3, window_shards=window_shards)
    expected = {Place(shard, sample) for shard, size in enumerate(SIZES) for sample in range(size)}
    for epoch in range(3):
        places = epoch_of(order, epoch)
        assert len(places) == len(expected)
        assert set(places) == expected


def test_no_more_shards_are_in_use_at_a_time_than_the_window_holds() -> None:
    order = ShuffledOrder((4,) * 12, seed=0, window_shards=3)
    places = epoch_of(order, 0)
    for start in range(0, len(places), 12):
        assert len({place.shard for place in places[start : start + 12]}) == 3
    # The samples of a window are mixed, not shard after shard.
    assert len({place.shard for place in places[:4]}) > 1


def test_another_epoch_or_seed_is_another_order_and_the_same_is_the_same() -> None:
    order = ShuffledOrder(SIZES, seed=3, window_shards=2)
    assert epoch_of(order, 0) == epoch_of(ShuffledOrder(SIZES, seed=3, window_shards=2), 0)
    assert epoch_of(order, 0) != epoch_of(order, 1)
    assert epoch_of(order, 0) != epoch_of(ShuffledOrder(SIZES, seed=4, window_shards=2), 0)


def test_a_position_leads_to_the_same_place_whatever_was_asked_before() -> None:
    order = ShuffledOrder(SIZES, seed=3, window_shards=2)
    forwards = epoch_of(order, 5)
    assert [order.place(5, index) for index in reversed(range(order.num_samples))] == forwards[::-1]
