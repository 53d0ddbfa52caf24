"""The configuration as types: every key, its unit, its default and one sentence on it. The generated schema and reference read this.

Values that depend on other parts of the file (does this node exist? does this check?) are judged in `references.py`; the file itself
is read in `loader.py`, which gives every problem its line. It never reads a file, a clock or the environment. Secrets are `SecretStr`, and
sections that also hold another model's keys show only the names of those: no secret appears in a repr, a log or `config show`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import ip_interface
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    PlainSerializer,
    SecretStr,
    WithJsonSchema,
    model_validator,
)

from agent.configuration.units import (
    DURATION_PATTERN,
    SIZE_PATTERN,
    format_duration,
    format_size,
    parse_duration_s,
    parse_size_bytes,
)
from agent.decision.view import Durability, FenceLayer, OnCrash
from checks.base import Level

SHOWN_SECRET = "********"  # noqa: S105 what stands in a secret's place


def absolute(path: Path) -> Path:
    """The path itself; raises ValueError for a relative one: a daemon's working directory is nobody's business."""
    if not path.is_absolute():
        raise ValueError("expected an absolute path, one that begins with /")
    return path


def host_and_port(address: str) -> tuple[str, int]:
    """Host and port of `HOST:PORT` or `[IPV6]:PORT`; raises ValueError with a sentence."""
    matched = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\s:\[\]/@]+)):([0-9]{1,5})", address, re.ASCII)
    if matched is None or not 1 <= int(matched[3]) <= 65535:
        raise ValueError("expected HOST:PORT, such as 192.0.2.11:8480 or [2001:db8::1]:8480")
    return matched[1] or matched[2], int(matched[3])


def consul_url(url: str) -> str:
    """The URL without a slash at its end; raises ValueError with a sentence for what is no address of a server."""
    matched = re.fullmatch(r"(https?)://(\[[0-9A-Fa-f:.]+\]|[^\s:\[\]/@?#]+)(?::([0-9]{1,5}))?/?", url, re.ASCII)
    if matched is None or not 1 <= int(matched[3] or 80) <= 65535:
        raise ValueError("expected a URL of HTTP or HTTPS, a host and a port, and nothing else")
    return url.removesuffix("/")


def key_folder(folder: str) -> str:
    """The name of a folder of keys; raises ValueError with a sentence."""
    if re.fullmatch(r"[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*", folder, re.ASCII) is None:
        raise ValueError("expected letters, digits, dots, - and _, with single slashes between them only")
    return folder


def _address(address: str) -> str:
    host_and_port(address)
    return address


def _shown(_secret: SecretStr) -> str:
    return SHOWN_SECRET


Duration = Annotated[
    float,
    BeforeValidator(parse_duration_s),
    Field(gt=0),
    PlainSerializer(format_duration, when_used="json"),
    WithJsonSchema({"type": "string", "pattern": DURATION_PATTERN, "examples": ["500ms", "5s", "2m"]}),
]
"""Seconds, written with a unit: 500ms, 5s, 2m, 1h."""
Size = Annotated[
    int,
    BeforeValidator(parse_size_bytes),
    Field(ge=0),
    PlainSerializer(format_size, when_used="json"),
    WithJsonSchema({"type": "string", "pattern": SIZE_PATTERN, "examples": ["64kB", "16MiB", "1GiB"]}),
]
"""Bytes, written with a unit: B, kB, KiB, MB, MiB, GB, GiB."""
NAME_PATTERN = r"^[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?$"
Name = Annotated[str, Field(pattern=NAME_PATTERN)]
"""Lower-case letters, digits, `-` and `_`; at most 63; a letter or digit at both ends."""
AbsolutePath = Annotated[Path, AfterValidator(absolute)]
HostPort = Annotated[str, AfterValidator(_address)]
ConsulUrl = Annotated[str, AfterValidator(consul_url), Field(max_length=300)]
Secret = Annotated[SecretStr, PlainSerializer(_shown, when_used="json")]
Text = Annotated[str, Field(min_length=1, max_length=4096)]


class Section(BaseModel):
    """Base of every section: unknown keys are errors, nothing changes after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class OpenSection(Section):
    """A section that also holds keys of another model, which validates them. They may be secrets: a repr shows only their names."""

    model_config = ConfigDict(extra="allow", frozen=True, use_attribute_docstrings=True)

    @property
    def others(self) -> dict[str, JsonValue]:
        """The keys of the other model, as they were written."""
        return dict(self.model_extra or {})

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        yield from ((name, getattr(self, name)) for name in type(self).model_fields)
        yield from ((name, SHOWN_SECRET) for name in self.others)


class Consul(Section):
    """Consul as coordinator."""

    url: ConsulUrl | tuple[ConsulUrl, ...] = "http://127.0.0.1:8500"
    """Address of an agent or server; of a list, the next one is asked when one does not answer."""
    token: Secret | None = None
    """ACL token. Better: token_file."""
    token_file: AbsolutePath | None = None
    """File that holds the ACL token; read again when it changes."""
    prefix: Annotated[str, AfterValidator(key_folder), Field(max_length=200)] = "quorate"
    """Folder of all keys, without a slash at its end."""
    ca_file: AbsolutePath | None = None
    """Authorities that may vouch for a server (https), PEM; the system's if not given."""
    cert: AbsolutePath | None = None
    """Certificate to show to a server (https), PEM. Needs `key`. Read again when it changes, as are the others."""
    key: AbsolutePath | None = None
    """Its key, PEM, without a passphrase."""

    @property
    def urls(self) -> tuple[str, ...]:
        return (self.url,) if isinstance(self.url, str) else self.url


class Local(Section):
    """A file on this host as coordinator: for a demo, a test, one machine with several instances. Does not survive the host."""

    path: AbsolutePath
    """The SQLite file that all agents of this host share. Not on a network file system."""


class Coordination(Section):
    """Where the nodes meet: exactly one of `consul` and `local`."""

    consul: Consul | None = None
    """The coordinator for several hosts."""
    local: Local | None = None
    """The coordinator for one host."""


class ApiTls(Section):
    """TLS of the agent's own address."""

    cert: AbsolutePath
    """Certificate and chain, PEM."""
    key: AbsolutePath
    """Its key, PEM."""
    client_ca: AbsolutePath | None = None
    """Clients must show a certificate of this authority."""


class Api(Section):
    """The agent's HTTP edge. Addresses are those of `nodes`."""

    tls: ApiTls | None = None
    """Plain HTTP if not given."""
    tokens_file: AbsolutePath | None = None
    """Tokens and their roles, for writes and for reads from other hosts."""
    peer_key_file: AbsolutePath | None = None
    """Shared key by which agents know one another."""
    private: bool = False
    """Ask for a token on /livez, /readyz, /groups and /metrics, too."""


class Node(Section):
    """One agent and where the others reach it."""

    address: Annotated[str, Field(pattern=r"^[^\s/@]+$", max_length=253)] = "127.0.0.1"
    """Address by which the other nodes reach this node's services."""
    api: HostPort = "127.0.0.1:8480"
    """HOST:PORT on which this agent listens."""
    site: Text | None = None
    """Where it stands, for people."""


class Defaults(Section):
    """What a check has when it does not say."""

    every: Duration = 5.0
    """Interval."""
    timeout: Duration = 2.0
    """Deadline of one run."""
    rise: Annotated[int, Field(ge=1, le=100)] = 2
    """Healthy runs in a row until it counts as healthy again."""
    fall: Annotated[int, Field(ge=1, le=100)] = 3
    """Unhealthy runs in a row until it counts as unhealthy."""


class CheckEntry(OpenSection):
    """One check of the catalogue. The keys of its `type` stand beside these; they are validated by the kind's own model."""

    type: Name
    """The kind: a file of checks/ or a plugin's name."""
    level: Level = Level.LIVENESS
    """How deep it asks."""
    on: tuple[Name, ...] | None = None
    """The nodes that run it; all if not given."""
    every: Duration | None = None
    """Interval; that of `defaults` if not given. So are the next three."""
    timeout: Duration | None = None
    """Deadline of one run."""
    rise: Annotated[int, Field(ge=1, le=100)] | None = None
    """Healthy runs in a row until it counts as healthy again."""
    fall: Annotated[int, Field(ge=1, le=100)] | None = None
    """Unhealthy runs in a row until it counts as unhealthy."""
    requires: tuple[Name, ...] = ()
    """Checks without which this one cannot tell: while one of them is unhealthy this one is unknown."""


class Lease(Section):
    """The time limits of a group's lease."""

    ttl: Duration = 5.0
    """How long a renewal lasts for its holder."""
    renew: Duration = 1.0
    """How often the holder renews."""
    fence_budget: Duration = 0.5
    """How long fencing may take."""
    failsafe: bool = True
    """Ask the voters directly when the coordinator takes no writes. For that the agents need api.peer_key_file."""


class Quorum(Section):
    """When a quorum of observers is believed."""

    patience: Duration = 10.0
    """How long a quorum must call the service unusable while its holder still renews."""


class Member(OpenSection):
    """A node that runs the service. Also takes the keys of the engine's section, to override them here."""

    priority: Annotated[int, Field(ge=0, le=1000)] = 100
    """Preference among equals; 0: never chosen."""
    nofailover: bool = False
    """Never chosen."""


class Login(Section):
    """How to log in as one role."""

    user: Text
    """The role's name."""
    password: Secret | None = None
    """Its password. Better: password_file."""
    password_file: AbsolutePath | None = None
    """File that holds the password and nothing else."""

    @model_validator(mode="after")
    def _one_password(self) -> Self:
        if self.password is not None and self.password_file is not None:
            raise ValueError("password and password_file exclude each other")
        return self


class EngineSection(OpenSection):
    """The engine's keys as written for the whole group. They are whole only together with a member's own: `references.postgres_of`."""


class Postgres(Section):
    """How to reach and control one Postgres instance: the group's `postgres` section with one member's own keys over it."""

    data_dir: AbsolutePath
    """The cluster's directory."""
    config_file: AbsolutePath | None = None
    """postgresql.conf where it is not in data_dir (Debian)."""
    bin_dir: AbsolutePath | None = None
    """Folder of pg_ctl, pg_rewind, pg_basebackup; those on PATH if not given."""
    socket_dir: AbsolutePath
    """Folder of the local socket."""
    port: Annotated[int, Field(ge=1, le=65535)] = 5432
    """TCP port, for standbys, observers and clients."""
    os_user: Text | None = None
    """The system user that runs it; the agent's own if not given."""
    control: Literal["pg_ctl"] = "pg_ctl"
    """What starts and stops it."""
    database: Text = "postgres"
    """Database to connect to."""
    admin: Login = Login(user="postgres")
    """Superuser, over the local socket."""
    monitor: Login = Login(user="quorate")
    """Observers of all nodes, over the network."""
    replication: Login = Login(user="replicator")
    """Standbys' receivers and base copies."""
    rewind: Login | None = None
    """pg_rewind's login at the leader; `admin`'s user over the network if not given."""
    start_timeout: Duration = 60.0
    """A start that takes longer has failed."""
    stop_timeout: Duration = 5.0
    """A clean stop that takes longer is ended by force."""
    rejoin_timeout: Duration = 3600.0
    """A rewind or base copy that takes longer is ended and begun anew."""


def _interface_address(text: str) -> str:
    """The address with its prefix; raises ValueError with a sentence."""
    try:
        parsed = ip_interface(text)
    except ValueError:
        parsed = None
    if parsed is None or "/" not in text or "%" in text:
        raise ValueError("expected an address with its prefix, such as 203.0.113.7/24 or 2001:db8::7/64")
    return str(parsed)


def _interface_name(name: str) -> str:
    if re.fullmatch(r"[^\s/:%]{1,15}", name) is None:
        raise ValueError("expected the name of an interface: 1 to 15 characters, no blank, no / : %")
    return name


class Vip(Section):
    """An address that stands on the leader's host and nowhere else."""

    address: Annotated[str, AfterValidator(_interface_address)]
    """The address with its prefix, IPv4 or IPv6."""
    interface: Annotated[str, AfterValidator(_interface_name)] | None = None
    """Where it is raised; the interface that has an address in the same network if not given."""


class Hook(Section):
    """Fixed commands that are run when a node was elected or defeated: lists of words, never a shell."""

    on_elected: tuple[Text, ...] = ()
    """Run on the new leader once its service takes writes and everything else that follows it points there."""
    on_defeated: tuple[Text, ...] = ()
    """Run on a node that led, once its lease is gone and nothing points to it any more."""
    timeout: Duration = 10.0
    """A command that takes longer is killed with all that it started."""


class Follower(Section):
    """One thing that follows the leader: exactly one of these keys."""

    vip: Vip | None = None
    """A virtual IP address."""
    hook: Hook | None = None
    """Commands of your own."""


class Group(Section):
    """One failover group: one lease, one leader."""

    engine: Literal["postgres"]
    """The kind of service."""
    members: Annotated[dict[Name, Member], Field(min_length=1)]
    """Nodes that run it."""
    witnesses: tuple[Name, ...] = ()
    """Nodes that only observe and vote."""
    lease: Lease = Lease()
    """Its time limits."""
    fence: Literal["auto"] | tuple[FenceLayer, ...] = "auto"
    """Layers that must stand; auto: all that this host can do, at least seal and watchdog. An empty list fences NOTHING."""
    quorum: Quorum = Quorum()
    """When the observers are believed."""
    durability: Durability = Durability.ASYNC
    """Whose acknowledgement a commit waits for: nobody's, or that of every standby of the set."""
    max_lag: Size = 1 << 20
    """A member further behind is not chosen."""
    on_crash: OnCrash = OnCrash.FAILOVER
    """What the leader does when its service alone crashed."""
    restart_timeout: Duration = 10.0
    """For on_crash: restart, before it gives up."""
    sync_timeout: Duration = 3.0
    """In `sync`: how long commits wait for a standby that is gone or silent before the set shrinks without it."""
    cooldown: Duration = 60.0
    """Between forced takeovers."""
    follows_leader: tuple[Follower, ...] = ()
    """What follows the leader."""
    postgres: EngineSection | None = None
    """The engine's section: what holds for every member that does not say otherwise."""


class Configuration(Section):
    """quorate.yaml: one file, the same on every node."""

    state_dir: AbsolutePath = Path("/var/lib/quorate")
    """Each node keeps what it must remember in a folder of its own name below this."""
    coordination: Coordination
    """Where the nodes meet."""
    api: Api = Api()
    """The agents' HTTP edge."""
    nodes: Annotated[dict[Name, Node], Field(min_length=1)]
    """Every agent."""
    defaults: Defaults = Defaults()
    """What a check has when it does not say."""
    checks: dict[Name, CheckEntry] = {}
    """The check catalogue."""
    groups: dict[Name, Group] = {}
    """The failover groups."""
