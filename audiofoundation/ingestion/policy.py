"""What is taken from the world: licence before bytes, then duration. The operator's own files pass."""

from dataclasses import dataclass
from enum import StrEnum

from audiofoundation.errors import InvalidRequest
from audiofoundation.ingestion.source import SourceKind
from audiofoundation.ingestion.states import ItemRefused, RefusalClass

MIN_DURATION_S = 30.0
MAX_DURATION_S = 3600.0
# The one licence row that YouTube shows (yt-dlp's `license`); without the row its standard licence holds.
YOUTUBE_CC = "Creative Commons Attribution license (reuse allowed)"
_OPEN_WORDS = ("creative commons", "cc-by", "cc by", "cc0", "public domain", "cc-0")
_CLOSED_WORDS = ("-nd", " nd", "noderiv", "no deriv")


class PolicyScope(StrEnum):
    """Which sources of a collection the policy judges."""

    CRAWLED = "crawled"
    ALL = "all"


class LicensePolicy(StrEnum):
    """`cc-only` takes Creative Commons and the public domain; `all` is an operator's explicit decision."""

    CC_ONLY = "cc-only"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class Policy:
    """The rules for one item.

    Attributes:
        license: which licences are taken.
        is_license_required: whether a source that states no licence is refused.
        min_duration_s: shortest recording.
        max_duration_s: longest recording.
    """

    license: LicensePolicy = LicensePolicy.CC_ONLY
    is_license_required: bool = False
    min_duration_s: float = MIN_DURATION_S
    max_duration_s: float = MAX_DURATION_S

    @property
    def name(self) -> str:
        """What the catalog keeps as provenance."""
        return f"{self.license.value};{self.min_duration_s:g}-{self.max_duration_s:g}s"

    def check_license(self, license_text: str | None) -> None:
        """Raise ItemRefused unless the stated licence allows training."""
        if self.license is LicensePolicy.ALL or (not license_text and not self.is_license_required):
            return
        if not license_text:
            raise ItemRefused(RefusalClass.LICENSE, "the source states no licence, so its standard one holds")
        if not is_open_license(license_text):
            raise ItemRefused(RefusalClass.LICENSE, f"the licence {license_text[:120]!r} does not allow this use")

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


def policy_for(kind: SourceKind, *, scope: PolicyScope, license_policy: str) -> Policy:
    """Return the rules for a source of this kind in a collection of this scope.

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
    return Policy(license=chosen, is_license_required=kind is SourceKind.YOUTUBE)


def is_open_license(text: str) -> bool:
    """Tell whether a licence as people write it allows reuse and derived works."""
    lowered = f" {text.lower()} "
    return any(word in lowered for word in _OPEN_WORDS) and not any(word in lowered for word in _CLOSED_WORDS)
