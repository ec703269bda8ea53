import pytest

from audiofoundation.identifiers import sha256_of
from audiofoundation.interchange.split import choose_validation


def hashes(count: int) -> list[str]:
    return [sha256_of(str(i).encode()) for i in range(count)]


@pytest.mark.parametrize(
    ("count", "share", "num_validation"),
    [(8, 0.25, 2), (8, 0.1, 1), (10, 0.1, 1), (11, 0.1, 2), (30, 0.1, 3), (8, 0.0, 0), (1, 0.5, 0), (2, 0.99, 1)],
)
def test_the_share_is_rounded_up_and_leaves_one_to_train(count: int, share: float, num_validation: int) -> None:
    chosen = choose_validation(hashes(count), share=share)

    assert len(chosen) == num_validation
    assert chosen == sorted(set(chosen))


def test_order_does_not_matter() -> None:
    forward, backward = hashes(50), hashes(50)[::-1]

    chosen = {forward[i] for i in choose_validation(forward, share=0.2)}

    assert {backward[i] for i in choose_validation(backward, share=0.2)} == chosen


def test_most_samples_stay_on_their_side_when_others_come() -> None:
    few, many = hashes(100), hashes(110)
    before = {few[i] for i in choose_validation(few, share=0.2)}

    after = {many[i] for i in choose_validation(many, share=0.2)}

    assert len(before - after) <= 5
