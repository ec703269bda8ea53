"""Which network addresses a fetch may connect to (reliability: no request reaches our own network)."""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from audiofoundation.errors import UnsafeUrl

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# IANA special-purpose registries, written out: `is_global` differs between patch releases of Python.
_REFUSED_V4 = tuple(
    IPv4Network(text)
    for text in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
        "192.0.0.0/24", "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24",
        "192.168.0.0/16", "192.175.48.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
        "224.0.0.0/4", "240.0.0.0/4",
    )
)  # fmt: skip
_GLOBAL_V6 = IPv6Network("2000::/3")
# Inside 2000::/3: Teredo and ORCHID, documentation, 6to4 (which carries any IPv4 address).
_REFUSED_V6 = tuple(
    IPv6Network(text) for text in ("2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20")
)


def is_public(address: Address) -> bool:
    """Tell whether the address is an ordinary unicast address of the public internet."""
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _REFUSED_V4)
    return address in _GLOBAL_V6 and not any(address in network for network in _REFUSED_V6)


def check_addresses(host: str, addresses: Sequence[Address], *, allowed: Sequence[Network]) -> None:
    """Check every address that a host has: one that is not public condemns them all.

    Raises:
        UnsafeUrl: an address is neither public nor in an allowed network.
    """
    for address in addresses:
        if not is_public(address) and not _is_allowed(address, allowed):
            raise UnsafeUrl(
                f"{host} is not on the public internet and is not fetched; an operator may allow its network "
                "with AF_FETCH__ALLOWED_NETWORKS",
                param="url",
            )


def _is_allowed(address: Address, allowed: Sequence[Network]) -> bool:
    return any(address.version == network.version and address in network for network in allowed)
