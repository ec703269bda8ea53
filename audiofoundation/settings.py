"""Reusable settings blocks, read once in a `main` and passed down.

Every field comes from the environment: prefix `AF_`, double underscore for nesting
(`AF_STORAGE__ENDPOINT`). No secret has a usable default.
"""

import os
import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

import platformdirs
from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

_PROJECT_ROOT = Path(__file__).resolve().parent.parent


class _Block(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class StorageSettings(_Block):
    """An S3 server: MinIO, Garage, SeaweedFS, Ceph, cloud S3 or the embedded one."""

    endpoint: str = Field(default="127.0.0.1:9000", description="host:port, without a scheme")
    access_key: SecretStr = SecretStr("")
    secret_key: SecretStr = SecretStr("")
    bucket: str = "audiofoundation"
    region: str = "us-east-1"
    is_secure: bool = False


class QueueSettings(_Block):
    """A Redis-protocol server that carries job ids."""

    url: SecretStr = SecretStr("redis://127.0.0.1:6379/0")
    key_prefix: str = "af:"


class CatalogSettings(_Block):
    """The SQL catalog: `sqlite:////path/catalog.db` or `postgresql+psycopg://…`."""

    url: SecretStr = SecretStr("")


def _spare_cpus() -> int:
    """One CPU less than there are: the machine also serves."""
    return max(1, (os.cpu_count() or 1) - 1)


class JobSettings(_Block):
    """Leases and retries of short jobs."""

    lease_s: float = 30.0
    heartbeat_s: float = 5.0
    max_attempts: int = 5
    sweep_interval_s: float = 5.0
    republish_after_s: float = 20.0
    max_backoff_s: float = 900.0
    preprocess_concurrency: int = Field(
        default_factory=_spare_cpus, ge=1, description="shards that one preprocess worker makes at the same time"
    )


class CustomFeature(_Block):
    """A descriptor of the operator's own: `function(samples, sample_rate_hz)` of a module gives it."""

    name: str = Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")
    module: str
    function: str


class PreprocessSettings(_Block):
    """What datasets have that no request can ask for: it names code, which runs in the workers without a sandbox."""

    custom_features: Annotated[tuple[CustomFeature, ...], NoDecode] = Field(
        default=(), description="name=package.module:function, comma-separated; the same for API and workers"
    )

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The names in one order, however they were written."""
        return tuple(sorted(feature.name for feature in self.custom_features))

    @field_validator("custom_features", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(_to_feature(part.strip()) for part in value.split(",") if part.strip())
        return value

    @field_validator("custom_features")
    @classmethod
    def _distinct(cls, value: tuple[CustomFeature, ...]) -> tuple[CustomFeature, ...]:
        if len({feature.name for feature in value}) < len(value):
            raise ValueError("two features have the same name")
        return value


def _to_feature(text: str) -> dict[str, str]:
    found = re.fullmatch(r"(\w+)\s*=\s*([\w.]+):(\w+)", text)
    if found is None:
        raise ValueError(f"{text!r} is not written as name=package.module:function")
    return dict(zip(("name", "module", "function"), found.groups(), strict=True))


class EgressIdentity(_Block):
    """One way out to YouTube, as YouTube sees it: it counts requests by address."""

    name: str = Field(default="direct", pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")
    proxy: SecretStr | None = None
    source_address: str | None = None


class FetchSettings(_Block):
    """What URL fetches may reach, how much they may bring and how often they may ask."""

    allowed_networks: Annotated[tuple[IPv4Network | IPv6Network, ...], NoDecode] = ()
    max_bytes: int = 2 << 30
    timeout_s: float = 30.0
    license_policy: Literal["cc-only", "owned-channels", "all"] = "cc-only"
    yandex_token: SecretStr | None = Field(default=None, description="the user's own, for Yandex Music")
    license_policy_by: str = Field(default="", max_length=128, description="who decided it; the system user if empty")
    owned_channels: Annotated[tuple[str, ...], NoDecode] = ()
    identities: tuple[EgressIdentity, ...] = Field(default=(EgressIdentity(),), min_length=1)
    videos_per_hour: int = Field(default=250, ge=1, description="most videos in any 60 minutes, per identity")
    video_min_gap_s: float = Field(default=10.0, ge=0)
    video_max_gap_s: float = Field(default=20.0, ge=0)
    host_per_hour: int = Field(default=3600, ge=1, description="most files in any 60 minutes from one other host")
    host_burst: int = Field(default=600, ge=1)
    host_concurrency: int = Field(default=4, ge=1)
    breaker_s: float = Field(default=3600.0, ge=0, description="rest of an identity that was refused (429, bot check)")

    @field_validator("owned_channels", mode="before")
    @classmethod
    def _split_channels(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("identities")
    @classmethod
    def _distinct(cls, value: tuple[EgressIdentity, ...]) -> tuple[EgressIdentity, ...]:
        if len({identity.name for identity in value}) < len(value):
            raise ValueError("two identities have the same name")
        return value

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.video_min_gap_s > self.video_max_gap_s:
            raise ValueError("video_min_gap_s is above video_max_gap_s")
        return self

    @field_validator("allowed_networks", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(ip_network(part.strip()) for part in value.split(",") if part.strip())
        return value


class ProbeSettings(_Block):
    """What recordings must be like to be worth their bytes. Crawled sources only, unless the policy judges all."""

    is_enabled: bool = True
    range_bytes: int = Field(default=512 << 10, ge=32 << 10, description="length of each range that is looked at")
    num_ranges: int = Field(default=3, ge=1, le=8)
    min_centroid_hz: float = Field(default=50.0, description="average frequency: the spectrum's centre of gravity")
    min_cutoff_hz: float = Field(default=3000.0, description="where the spectrum ends in a cliff")
    max_hum_to_signal_db: float = Field(default=-6.0, description="level of mains hum over the whole signal's")
    max_clipped_ratio: float = Field(default=0.05, description="share of samples cut off at a ceiling, at any level")
    max_silence_ratio: float = 0.9
    max_noise_floor_dbfs: float = -20.0
    allowed_labels: Annotated[tuple[Literal["speech", "music", "other"], ...], NoDecode] = Field(
        default=(), description="what a recording may sound like to the bundled classifier; anything when empty"
    )

    @field_validator("allowed_labels", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value


class ServingSettings(_Block):
    """Doors and limits of the HTTP, WebSocket and gRPC servers."""

    host: str = "127.0.0.1"
    port: int = 8000
    grpc_port: int = 50051
    api_keys: Annotated[tuple[SecretStr, ...], NoDecode] = ()
    allowed_origins: Annotated[tuple[str, ...], NoDecode] = ()
    max_body_bytes: int = 100 << 20
    max_audio_s: float = 600.0
    max_generated_s: float = 120.0
    max_running: int = 2
    max_waiting: int = 16
    max_sessions: int = Field(default=128, ge=1, description="WebSockets and gRPC calls that are open at once")
    max_held_bytes: int = Field(default=1 << 30, description="of recordings that these are sending, together")
    drain_s: float = 10.0

    @field_validator("api_keys", "allowed_origins", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value


class ModelSettings(_Block):
    """Where models come from and how they run."""

    pretrained_dir: Path = _PROJECT_ROOT / "pretrained"
    cache_dir: Path = Path(platformdirs.user_cache_dir("audiofoundation"))
    device: str = "cpu"
    num_threads: int = Field(default=1, description="intra-op threads of torch; a compiled step has one")


class TelemetrySettings(_Block):
    """Logs, and where traces go."""

    log_level: str = "INFO"
    is_json: bool = True
    otlp_endpoint: str = Field(default="", description="of a collector that takes OTLP over HTTP; no traces when empty")
    trace_ratio: float = Field(default=1.0, ge=0, le=1, description="of the traces that begin here, how many are kept")

    @field_validator("otlp_endpoint")
    @classmethod
    def _is_collector(cls, value: str) -> str:
        if not value:
            return value
        parts = urlsplit(value)
        is_address = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        if not is_address or parts.query or parts.fragment or re.search(r"\s", value):
            raise ValueError("the collector's address is written as http://host:4318 or https://host/path")
        if parts.username is not None or parts.password is not None:
            raise ValueError("credentials go into OTEL_EXPORTER_OTLP_HEADERS, not into the collector's address")
        if parts.path.rstrip("/").endswith("/v1/traces"):
            raise ValueError("leave out /v1/traces: it is added")
        return value.rstrip("/")


class CollectorSettings(_Block):
    """The collector of left-over objects, which can run by itself in the ingest workers.

    It does not by default: on a catalog restored from a backup, what is newer than the backup is named by nothing.
    """

    interval_s: float = Field(default=0.0, ge=0, description="between two passes; 0: only when asked")


class MetricsSettings(_Block):
    """Where the workers' /metrics are, without a key; port 0: nowhere. The services have it on their own port."""

    host: str = "127.0.0.1"
    ingest_worker_port: int = Field(default=0, ge=0, le=65535)
    preprocess_worker_port: int = Field(default=0, ge=0, le=65535)


class Settings(BaseSettings):
    """All blocks. A service uses the ones it needs."""

    model_config = SettingsConfigDict(env_prefix="AF_", env_nested_delimiter="__", frozen=True, extra="ignore")

    data_dir: Path = Path(platformdirs.user_data_dir("audiofoundation"))
    storage: StorageSettings = StorageSettings()
    queue: QueueSettings = QueueSettings()
    catalog: CatalogSettings = CatalogSettings()
    jobs: JobSettings = JobSettings()
    preprocess: PreprocessSettings = PreprocessSettings()
    fetch: FetchSettings = FetchSettings()
    probe: ProbeSettings = ProbeSettings()
    serving: ServingSettings = ServingSettings()
    models: ModelSettings = ModelSettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    metrics: MetricsSettings = MetricsSettings()
    collector: CollectorSettings = CollectorSettings()


# Read elsewhere: by the CLI, docker-compose.yml, the compiled kernels and the embedded stack; `AF_TEST_…` by tests and
# `AF_TRAIN__…` by the train service.
_OTHER_NAMES = ("URL", "API_KEY", "PORT", "GRPC_PORT", "VERSION", "NATIVE", "STACK_ID", "STACK_ROOT", "FAILPOINTS")
_OTHER_BEGINNINGS = ("AF_TEST_", "AF_TRAIN__")


def find_misspelt(environment: Mapping[str, str]) -> Iterator[str]:
    """Yield a sentence for each variable that begins as ours do and that nothing reads.

    A wrong name behind a block's (`AF_FETCH__…`) is not among them: `Settings` refuses that.
    """
    known, blocks = _known_names(), tuple(f"{block}__" for block in _blocks())
    for name in sorted(environment):
        upper = name.upper()
        if upper.startswith("AF_") and upper not in known and not upper.startswith((*blocks, *_OTHER_BEGINNINGS)):
            yield f"{no_setting(name)} and is ignored"


def no_setting(name: str) -> str:
    """Say that a variable is no setting, and which one may have been meant."""
    meant = get_close_matches(name.upper(), _known_names(), n=1, cutoff=0.7)
    return f"{name} is no setting" + (f" ({meant[0]} is one)" if meant else "")


def _known_names() -> set[str]:
    nested = (f"{block}__{name.upper()}" for block, kind in _blocks().items() for name in kind.model_fields)
    plain = (f"AF_{name.upper()}" for name in (*Settings.model_fields, *_OTHER_NAMES))
    return {*plain, *nested}


def _blocks() -> dict[str, type[_Block]]:
    kinds = {f"AF_{name.upper()}": field.annotation for name, field in Settings.model_fields.items()}
    return {name: kind for name, kind in kinds.items() if isinstance(kind, type) and issubclass(kind, _Block)}
