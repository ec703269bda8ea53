"""An operator's decision for more than open licences, kept with who made it, when, and under which text."""

import getpass
import time

import structlog
from sqlalchemy import Engine, select

from audiofoundation.catalog.engine import read_session, write_session
from audiofoundation.catalog.tables import PolicyDecision
from audiofoundation.errors import InvalidRequest
from audiofoundation.identifiers import create_id
from audiofoundation.ingestion.policy import TEXT_VERSION, LicensePolicy, PolicyScope, policy_for
from audiofoundation.ingestion.source import SourceKind
from audiofoundation.settings import FetchSettings

_log = structlog.get_logger(__name__)


def record_policy(engine: Engine, settings: FetchSettings) -> None:
    """Write the decision that the settings express, unless it is the last one that was written, or none is needed.

    Raises:
        InvalidRequest: the settings name no policy, or `owned-channels` without channels.
    """
    policy = policy_for(SourceKind.YOUTUBE, scope=PolicyScope.CRAWLED, license_policy=settings.license_policy)
    if policy.license is LicensePolicy.OWNED_CHANNELS and not settings.owned_channels:
        raise InvalidRequest("AF_FETCH__LICENSE_POLICY is 'owned-channels', but AF_FETCH__OWNED_CHANNELS names none")
    if policy.license is LicensePolicy.CC_ONLY and _last(engine) is None:
        return
    decision = PolicyDecision(
        id=create_id("policy"),
        policy=policy.license.value,
        text_version=TEXT_VERSION,
        decided_by=settings.license_policy_by or getpass.getuser(),
        owned_channels={"ids": sorted(settings.owned_channels)},
        decided_at=time.time(),
    )
    if _terms(decision) == _last(engine):
        return
    with write_session(engine) as session:
        session.add(decision)
    _log.warning("license_policy_decided", policy=decision.policy, by=decision.decided_by, text_version=TEXT_VERSION)


def _last(engine: Engine) -> tuple[str, ...] | None:
    newest = select(PolicyDecision).order_by(PolicyDecision.decided_at.desc()).limit(1)
    with read_session(engine) as session:
        found = session.scalars(newest).first()
        return None if found is None else _terms(found)


def _terms(decision: PolicyDecision) -> tuple[str, ...]:
    return decision.policy, decision.text_version, decision.decided_by, *decision.owned_channels["ids"]
