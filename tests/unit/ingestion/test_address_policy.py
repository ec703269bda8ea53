from ipaddress import ip_address, ip_network

import pytest

from audiofoundation.errors import UnsafeUrl
from audiofoundation.ingestion.address_policy import check_addresses, is_public

REFUSED = [
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "100.64.0.1",
    "127.0.0.1",
    "127.255.255.254",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.1",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.19.255.255",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.1.2.3",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::ffff:127.0.0.1",
    "::ffff:8.8.8.8",
    "64:ff9b::7f00:1",
    "100::1",
    "2001::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "fc00::1",
    "fd12::1",
    "fe80::1",
    "fec0::1",
    "ff02::1",
    "3fff::1",
]
PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "9.255.255.255",
    "11.0.0.0",
    "100.128.0.1",
    "172.15.0.1",
    "172.32.0.1",
    "2606:4700::1111",
    "2a00:1450::1",
]


@pytest.mark.parametrize("address", REFUSED)
def test_special_addresses_are_not_public(address: str) -> None:
    assert not is_public(ip_address(address))


@pytest.mark.parametrize("address", PUBLIC)
def test_ordinary_addresses_are_public(address: str) -> None:
    assert is_public(ip_address(address))


def test_one_private_address_condemns_all_of_a_name() -> None:
    with pytest.raises(UnsafeUrl, match="AF_FETCH__ALLOWED_NETWORKS"):
        check_addresses("mixed.example", [ip_address("8.8.8.8"), ip_address("10.0.0.1")], allowed=())


def test_an_allowed_network_is_allowed_and_only_that() -> None:
    allowed = (ip_network("127.0.0.0/8"),)
    check_addresses("here", [ip_address("127.0.0.1")], allowed=allowed)
    with pytest.raises(UnsafeUrl):
        check_addresses("here", [ip_address("127.0.0.1"), ip_address("::1")], allowed=allowed)
