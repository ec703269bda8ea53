import json
from dataclasses import replace

import pytest
from sqlalchemy import Engine, insert

from audiofoundation.catalog.tables import Asset, Collection, Item
from audiofoundation.errors import InvalidRequest, MelMismatch
from audiofoundation.identifiers import CollectionId
from audiofoundation.jobs.queue import JobQueue
from audiofoundation.preprocessing.options import DatasetOptions, dataset_id_of
from audiofoundation.preprocessing.plan import PlannedItem, group_items, plan_dataset
from audiofoundation.preprocessing.status import union_s
from tests.unit.jobs.handlers import Recorder

COLLECTION = CollectionId("col_1")


def test_groups_keep_order_and_size() -> None:
    items = [PlannedItem(str(i), duration_s) for i, duration_s in enumerate([4.0, 4.0, 4.0, 25.0, 1.0, 1.0])]
    groups = list(group_items(items, max_s=10.0))
    assert [[item.item_id for item in group] for group in groups] == [["0", "1"], ["2"], ["3"], ["4", "5"]]


def test_no_items_are_no_groups() -> None:
    assert list(group_items([], max_s=10.0)) == []


def test_the_same_options_are_the_same_dataset_and_others_another() -> None:
    plain = dataset_id_of(COLLECTION, DatasetOptions())
    assert plain == dataset_id_of(COLLECTION, DatasetOptions(preset="vocos24", segment_s=3.0))
    others = [
        DatasetOptions(preset="hifigan22"),
        DatasetOptions(segment_s=2.0),
        DatasetOptions(min_segment_s=1.0),
        DatasetOptions(target_lufs=None),
        DatasetOptions(is_trimmed=False),
        DatasetOptions(include_waveform=True),
        DatasetOptions(include_waveform=True, channels=2),
        DatasetOptions(has_rhythm=True),
        DatasetOptions(custom_features=("crest",)),
        DatasetOptions(custom_features=("crest", "tilt")),
    ]
    ids = {plain, dataset_id_of(CollectionId("col_2"), DatasetOptions())}
    ids |= {dataset_id_of(COLLECTION, options) for options in others}
    assert len(ids) == 12


def test_options_that_came_later_leave_the_ids_of_datasets_as_they_were() -> None:
    assert set(DatasetOptions().to_config()) == {
        "preset",
        "segment_s",
        "min_segment_s",
        "target_lufs",
        "is_trimmed",
        "include_waveform",
    }


def test_stereo_without_audio_is_refused_with_what_to_ask_for() -> None:
    with pytest.raises(InvalidRequest, match=r"mono mix.*include_waveform, --with-waveform") as refused:
        DatasetOptions(channels=2)
    assert refused.value.param == "channels"


def test_options_survive_the_catalog() -> None:
    options = DatasetOptions(
        preset="hifigan22", segment_s=2.5, target_lufs=-20.0, include_waveform=True, has_rhythm=True, channels=2
    )
    for one in (options, replace(options, custom_features=("crest", "tilt"))):
        assert DatasetOptions.from_config(json.loads(json.dumps(one.to_config()))) == one


@pytest.mark.parametrize(
    "kwargs", [{"segment_s": 0.01}, {"segment_s": 1e9}, {"min_segment_s": 4.0}, {"target_lufs": 3.0}, {"channels": 3}]
)
def test_options_out_of_range_say_which(kwargs: dict[str, float]) -> None:
    with pytest.raises(InvalidRequest) as refused:
        DatasetOptions(**kwargs)  # type: ignore[arg-type]  # one float field each
    assert refused.value.param in kwargs


def test_an_unknown_preset_is_refused() -> None:
    with pytest.raises(MelMismatch):
        DatasetOptions(preset="mel9000")


def test_three_second_segments_are_whole_hops() -> None:
    options = DatasetOptions()
    assert options.segment_frames == 281  # 281.25 hops of 256 samples at 24 kHz
    assert options.bytes_per_s == pytest.approx(18_750)
    assert DatasetOptions(include_waveform=True).bytes_per_s == pytest.approx(18_750 + 48_000)
    assert DatasetOptions(include_waveform=True, channels=2).bytes_per_s == pytest.approx(18_750 + 96_000)


def test_overlapping_spans_count_once() -> None:
    assert union_s([(0.0, 2.0), (1.0, 3.0), (10.0, 11.0), (10.2, 10.5)]) == pytest.approx(4.0)
    assert union_s([]) == 0.0


@pytest.mark.parametrize("items_per_recording", [1, 2, 1_000_000])
def test_planning_costs_in_proportion_to_the_collection(sqlite_engine: Engine, items_per_recording: int) -> None:
    """Counted in steps of SQLite's machine: a plan that looked through the dataset for each item took their square."""
    steps = [steps_of_planning(sqlite_engine, f"col_{size}", size, items_per_recording) for size in (500, 2000)]

    assert steps[1] < 6 * steps[0]


def test_where_nothing_is_missing_the_plan_reads_indexes_alone(sqlite_engine: Engine) -> None:
    """It happens under the lock of all writers: 18 steps an item; with their rows 42, and a read of the disk each."""
    assert 100 * steps_of_planning(sqlite_engine, "col", 2000, 1) < 25 * 2000


def steps_of_planning(engine: Engine, name: str, num_items: int, items_per_recording: int) -> int:
    """Return hundreds of steps that planning takes where all recordings are in the dataset already."""
    times = {"created_at": 0.0, "updated_at": 0.0}
    ids = [f"{name}-{number}" for number in range(num_items)]
    sound = {"size_bytes": 1, "container": "wav", "codec": "pcm", "sample_rate_hz": 24000, "num_channels": 1}
    stored = {"collection_id": name, "kind": "url", "source": "s", "state": "stored", **times}
    recording_of = {each: ids[number // items_per_recording] for number, each in enumerate(ids)}
    assets = [
        {"id": each, "sha256": each, "key": each, "duration_s": 1.0, **sound, **times}
        for each in sorted(set(recording_of.values()))
    ]
    items = [{"id": each, "canonical": each, "asset_id": recording_of[each], **stored} for each in ids]
    queue, steps = JobQueue(engine, Recorder()), list[int]()
    with queue.unit_of_work() as unit:
        collection = Collection(id=name, name=name, policy="crawled")
        unit.session.add(collection)
        unit.session.flush()
        unit.session.execute(insert(Asset), assets)
        unit.session.execute(insert(Item), items)
        plan_dataset(unit, collection, DatasetOptions(), num_workers=1)
    with queue.unit_of_work() as unit:
        found = unit.session.get_one(Collection, name)
        driver = unit.session.connection().connection.driver_connection
        assert driver is not None
        driver.set_progress_handler(lambda: steps.append(1), 100)
        plan_dataset(unit, found, DatasetOptions(), num_workers=1)
        driver.set_progress_handler(None, 0)
    return len(steps)
