"""Licences before bytes: what each policy takes, and that a decision for more is kept."""

import random
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, select

from audiofoundation.catalog.engine import read_session
from audiofoundation.catalog.tables import PolicyDecision
from audiofoundation.errors import InvalidRequest
from audiofoundation.ingestion.licenses import YOUTUBE_CC
from audiofoundation.ingestion.policy import (
    TEXT_VERSION,
    UNLIMITED,
    Policy,
    PolicyScope,
    policy_for,
)
from audiofoundation.ingestion.policy_record import record_policy
from audiofoundation.ingestion.source import SourceKind
from audiofoundation.ingestion.states import ItemRefused, RefusalClass
from audiofoundation.ingestion.youtube import YoutubeSource, check_video
from audiofoundation.settings import FetchSettings
from tests.data_plane import FileServer, serving_files
from tests.unit.ingestion.test_youtube import RECORDED, SOUND, URL, no_progress, recorded_site, with_formats

NOT_CC: list[object] = [
    None, "", "Standard YouTube License", "Youtube-Standardlizenz", "creative commons", YOUTUBE_CC.lower(),
    f"{YOUTUBE_CC} ", f"not {YOUTUBE_CC}", "CC-BY-ND", "All rights reserved", 7, ["Creative Commons"], {},
]  # fmt: skip


def youtube_policy(name: str, channels: tuple[str, ...] = ()) -> Policy:
    return policy_for(SourceKind.YOUTUBE, scope=PolicyScope.CRAWLED, license_policy=name, owned_channels=channels)


def is_taken(policy: Policy, license_text: str | None, channel_id: str | None = None) -> bool:
    try:
        policy.check_license(license_text, channel_id=channel_id)
    except ItemRefused:
        return False
    return True


def test_a_thousand_videos_without_the_licence_cost_no_byte(tmp_path: Path) -> None:
    rng = random.Random(1)
    with serving_files(FileServer({"/best-opus": SOUND, "/aac": SOUND, "/low-opus": SOUND})) as server:
        metadata = with_formats(server)
        create = recorded_site(metadata)
        sessions: list[Any] = []

        def shared(options: dict[str, Any]) -> Any:
            if not sessions:
                sessions.append(create(options))
            return sessions[0]

        source = YoutubeSource(FetchSettings(), create=shared)
        for number in range(1000):
            metadata.pop("license", None)
            metadata |= {"title": f"{number}", "duration": rng.randint(30, 3600), "channel_id": f"UC{number}"}
            if (stated := rng.choice(NOT_CC)) is not None:
                metadata["license"] = stated
            with source.open(URL, tmp_path / "job", attempt=1) as video, pytest.raises(ItemRefused) as refused:
                check_video(video.info, youtube_policy("cc-only"))
            assert refused.value.refusal is RefusalClass.LICENSE
        assert server.asked == []
        metadata["license"] = YOUTUBE_CC
        with source.open(URL, tmp_path / "job", attempt=1) as video:
            check_video(video.info, youtube_policy("cc-only"))
            assert video.download(no_progress).read_bytes() == SOUND


@pytest.mark.parametrize(
    ("name", "license_text", "channel_id", "expected"),
    [
        ("cc-only", YOUTUBE_CC, None, True),
        ("cc-only", None, "UCmine", False),
        ("owned-channels", None, "UCmine", True),
        ("owned-channels", None, "UCother", False),
        ("owned-channels", None, None, False),
        ("owned-channels", YOUTUBE_CC, "UCother", True),
        ("all", None, None, True),
    ],
)
def test_each_policy_takes_what_it_says(
    name: str, license_text: str | None, channel_id: str | None, expected: bool
) -> None:
    assert is_taken(youtube_policy(name, ("UCmine",)), license_text, channel_id) is expected


@pytest.mark.parametrize(
    ("name", "kind", "license_text", "expected"),
    [
        ("owned-channels", SourceKind.URL, "All rights reserved", False),
        ("owned-channels", SourceKind.YANDEX, "CC-BY-ND", False),
        ("owned-channels", SourceKind.URL, "CC-BY", True),
        ("owned-channels", SourceKind.URL, None, False),
        ("cc-only", SourceKind.URL, None, False),
        ("cc-only", SourceKind.URL, "", False),
        ("cc-only", SourceKind.URL, "https://creativecommons.org/licenses/by/4.0/", True),
        ("cc-only", SourceKind.YANDEX, None, False),
        ("cc-only", SourceKind.YOUTUBE, None, True),  # its page is asked before any byte of it
        ("all", SourceKind.URL, None, True),
        ("owned-channels", SourceKind.YOUTUBE, "All rights reserved", True),  # its channel decides, once it is known
        ("cc-only", SourceKind.YOUTUBE, "All rights reserved", False),
        ("cc-only", SourceKind.YOUTUBE, "CC-BY", True),
        ("all", SourceKind.URL, "All rights reserved", True),
    ],
)
def test_a_closed_licence_in_a_list_is_refused_unless_a_channel_may_open_it(
    name: str, kind: SourceKind, license_text: str | None, expected: bool
) -> None:
    policy = policy_for(kind, scope=PolicyScope.CRAWLED, license_policy=name, owned_channels=("UCmine",))
    if expected:
        policy.check_listed_license(license_text)
        return
    with pytest.raises(ItemRefused):
        policy.check_listed_license(license_text)


def test_a_refusal_for_want_of_a_licence_says_what_helps() -> None:
    hints = {SourceKind.URL: "--license", SourceKind.YANDEX: "LICENSE_POLICY=all takes", SourceKind.YOUTUBE: "standard"}
    for kind, hint in hints.items():
        with pytest.raises(ItemRefused, match=hint):
            policy_for(kind, scope=PolicyScope.CRAWLED, license_policy="cc-only").check_license(None)


def test_owned_channels_count_under_their_policy_alone() -> None:
    assert not is_taken(youtube_policy("cc-only", ("UCmine",)), None, "UCmine")


def test_what_an_item_remembers_names_the_text_of_wider_policies() -> None:
    assert youtube_policy("cc-only").name == "cc-only;30-3600s"
    assert youtube_policy("all").name == f"all@{TEXT_VERSION};30-3600s"
    assert UNLIMITED.name == "all;0-infs"


def test_an_unknown_policy_is_a_mistake() -> None:
    with pytest.raises(InvalidRequest, match="owned-channels"):
        youtube_policy("everything")


@pytest.mark.parametrize("availability", ["private", "premium_only", "subscriber_only", "needs_auth"])
def test_videos_that_are_not_public_are_left_alone(availability: str) -> None:
    from audiofoundation.ingestion.youtube import to_video_info

    check_video(to_video_info({**RECORDED, "availability": "unlisted"}), Policy(kind=SourceKind.YOUTUBE))
    with pytest.raises(ItemRefused) as refused:
        check_video(to_video_info({**RECORDED, "availability": availability}), Policy(kind=SourceKind.YOUTUBE))
    assert refused.value.refusal is RefusalClass.RESTRICTED


def test_a_wider_policy_is_recorded_once_with_who_and_when(engine: Engine) -> None:
    record_policy(engine, FetchSettings())
    assert decisions(engine) == []
    wide = FetchSettings(license_policy="all", license_policy_by="Ada")
    for _ in range(2):
        record_policy(engine, wide)
    record_policy(engine, FetchSettings(license_policy="owned-channels", owned_channels=("UC1",)))
    record_policy(engine, FetchSettings())
    found = decisions(engine)
    assert [row.policy for row in found] == ["all", "owned-channels", "cc-only"]
    assert (found[0].decided_by, found[0].text_version) == ("Ada", TEXT_VERSION)
    assert found[1].owned_channels == {"ids": ["UC1"]}
    assert found[0].decided_at > 1.7e9


def test_owned_channels_need_channels(engine: Engine) -> None:
    with pytest.raises(InvalidRequest, match="AF_FETCH__OWNED_CHANNELS"):
        record_policy(engine, FetchSettings(license_policy="owned-channels"))


def decisions(engine: Engine) -> list[PolicyDecision]:
    with read_session(engine) as session:
        return list(session.scalars(select(PolicyDecision).order_by(PolicyDecision.decided_at)))
