"""What is taken from the world: licence before bytes, then duration. The operator's own files pass."""

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum

from audiofoundation.errors import InvalidRequest
from audiofoundation.ingestion.licenses import YOUTUBE_CC, is_open_license
from audiofoundation.ingestion.source import SourceKind
from audiofoundation.ingestion.states import ItemRefused, RefusalClass

# Of the sentences below that say what each licence policy takes; kept with every decision for more than `cc-only`.
TEXT_VERSION = "2026-11"
MIN_DURATION_S = 30.0
MAX_DURATION_S = 3600.0
_NO_LICENSE = {
    SourceKind.YOUTUBE: "the source states no licence, so its standard one holds",
    SourceKind.URL: "the source states no licence; name it with --license or in the list's column license, or let "
    "AF_FETCH__LICENSE_POLICY take others",
    SourceKind.YANDEX: "Yandex Music states no open licence; AF_FETCH__LICENSE_POLICY=all takes what you have a right "
    "to use",
}


class PolicyScope(StrEnum):
    """Which sources of a collection the policy judges."""

    CRAWLED = "crawled"
    ALL = "all"


class LicensePolicy(StrEnum):
    """Which licences are taken; everything but `cc-only` is an operator's explicit, recorded decision.

    `cc-only` takes Creative Commons and the public domain. `owned-channels` takes these, and whatever lies in
    channels that the operator owns. `all` takes everything: the operator answers for the right to use it.
    """

    CC_ONLY = "cc-only"
    OWNED_CHANNELS = "owned-channels"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class Policy:
    """The rules for one item.

    Attributes:
        license: which licences are taken.
        kind: of the source. A video's licence must be the one row that YouTube shows, a track has none, and the
            operator's own file need not state any.
        owned_channels: ids of the operator's own channels, under `owned-channels`.
        min_duration_s: shortest recording.
        max_duration_s: longest recording.
    """

    license: LicensePolicy = LicensePolicy.CC_ONLY
    kind: SourceKind = SourceKind.URL
    owned_channels: frozenset[str] = frozenset()
    min_duration_s: float = MIN_DURATION_S
    max_duration_s: float = MAX_DURATION_S

    @property
    def name(self) -> str:
        """What the catalog keeps as provenance."""
        version = "" if self.license is LicensePolicy.CC_ONLY or self == UNLIMITED else f"@{TEXT_VERSION}"
        return f"{self.license.value}{version};{self.min_duration_s:g}-{self.max_duration_s:g}s"

    def check_license(self, license_text: str | None, *, channel_id: str | None = None) -> None:
        """Raise ItemRefused unless the stated licence, or the channel, allows training."""
        if self.license is LicensePolicy.ALL or (channel_id is not None and channel_id in self.owned_channels):
            return
        if not license_text and self.kind is SourceKind.FILE:
            return
        if not license_text or self.kind is SourceKind.YANDEX:
            raise ItemRefused(RefusalClass.LICENSE, _NO_LICENSE[self.kind])
        is_open = license_text == YOUTUBE_CC if self.kind is SourceKind.YOUTUBE else is_open_license(license_text)
        if not is_open:
            raise ItemRefused(
                RefusalClass.LICENSE,
                f"the licence {license_text[:120]!r} does not allow this use; taken are Creative Commons that allows "
                "derived works (no ND) and the public domain, or what AF_FETCH__LICENSE_POLICY takes besides",
            )

    def check_listed_license(self, license_text: str | None) -> None:
        """As `check_license`, for what a list or feed says: of a video more is known only when it is looked at."""
        is_judged_later = self.license is not LicensePolicy.CC_ONLY or not license_text or is_open_license(license_text)
        if not (self.kind is SourceKind.YOUTUBE and is_judged_later):
            self.check_license(license_text)

    def takes_listed(self, license_text: str | None) -> bool:
        """Tell whether `check_listed_license` passes."""
        try:
            self.check_listed_license(license_text)
        except ItemRefused:
            return False
        return True

    def check_duration(self, duration_s: float | None) -> None:
        """Raise ItemRefused when the duration, if known, is out of bounds."""
        if duration_s is None:
            return
        if duration_s < self.min_duration_s:
            raise ItemRefused(
                RefusalClass.TOO_SHORT,
                f"the recording lasts {duration_s:.1f} s, less than {self.min_duration_s:g} s",
            )
        if duration_s > self.max_duration_s:
            raise ItemRefused(
                RefusalClass.TOO_LONG,
                f"the recording lasts {duration_s:.0f} s, more than {self.max_duration_s:g} s",
            )


UNLIMITED = Policy(license=LicensePolicy.ALL, min_duration_s=0.0, max_duration_s=float("inf"))


def policy_for(
    kind: SourceKind, *, scope: PolicyScope, license_policy: str, owned_channels: Collection[str] = ()
) -> Policy:
    """Return the rules for a source of this kind in a collection of this scope.

    Args:
        kind: of the source.
        scope: which sources the collection's policy judges.
        license_policy: AF_FETCH__LICENSE_POLICY.
        owned_channels: AF_FETCH__OWNED_CHANNELS; counts under `owned-channels` alone.

    Raises:
        InvalidRequest: AF_FETCH__LICENSE_POLICY names no policy.
    """
    if kind is SourceKind.FILE and scope is not PolicyScope.ALL:
        return UNLIMITED
    try:
        chosen = LicensePolicy(license_policy)
    except ValueError as error:
        known = ", ".join(LicensePolicy)
        raise InvalidRequest(f"AF_FETCH__LICENSE_POLICY is {license_policy!r}; choose one of {known}") from error
    owned = frozenset(owned_channels) if chosen is LicensePolicy.OWNED_CHANNELS else frozenset()
    return Policy(license=chosen, kind=kind, owned_channels=owned)
