"""Which licences are open, as sources and people write them."""

import re
import unicodedata
from functools import lru_cache

# The one licence row that YouTube shows (yt-dlp's `license`); without the row its standard licence holds.
YOUTUBE_CC = "Creative Commons Attribution license (reuse allowed)"

_DEED = re.compile(
    r"(?:https?://)?(?:www\.)?creativecommons\.org/(?:licenses|publicdomain)/([a-z-]+)"
    r"(?:/(\d\.\d)(?:/[a-z]{2})?)?(?:/(?:deed|legalcode)(?:\.[a-z_-]+)?)?/?(?:[?#][^\s(),;]*)?(?![^\s(),;])"
)
_PUBLIC_DOMAIN_DEEDS = {"zero": "CC0", "mark": "public domain"}
_VERSION = r"(?: v?\d(?:\.\d)?)"
# Licences were adapted to countries: CC BY 3.0 US. Norway is missing: "no" refuses in plain words.
_COUNTRIES = (
    "at au be br ca ch cl cn co cr cz de dk ec ee eg es fi fr gb gr gt hk hr hu ie il in it jp kr lu mk mt mx my nl nz "
    "pe ph pl pr pt ro rs se sg si th tw ug uk us ve vn za"
)
_PORTS = "|".join(["international", "unported", "generic", "universal", "united states", "igo", *_COUNTRIES.split()])
_RELEASE = rf"(?:{_VERSION}(?: (?:{_PORTS}))?)?"
_CONDITIONS = r"(?: (?:nc|non ?commercial|sa|share ?alike))*"
_END = r"(?: (?:public )?licen[sc]e)?(?: deed)?"
_OPEN = re.compile(
    "(?:"
    rf"(?:cc|creative commons) ?(?:0|zero){_RELEASE}(?: public domain dedication)?"
    rf"|(?:cc )?(?:public ?domain|pdm)(?: mark| dedication)?{_VERSION}?"
    r"|creative commons"
    rf"|(?:(?:cc|creative commons) ?(?:by|attribution)|attribution){_CONDITIONS}{_RELEASE}"
    rf"|by{_CONDITIONS}{_VERSION}(?: (?:{_PORTS}))?"
    rf"){_END}"
)
_REMARKS = frozenset({"reuse allowed", "some rights reserved"})


@lru_cache(maxsize=4096)
def is_open_license(text: str) -> bool:
    """Tell whether a licence as people write it is Creative Commons or the public domain and allows derived works.

    Names (`Attribution-ShareAlike 4.0 International`), codes (`CC BY-SA 4.0`, `CC-BY-SA-4.0`) and addresses of deeds
    are known. The whole text must be such a licence: one that says anything else besides is not taken.
    """
    plain = unicodedata.normalize("NFKC", text).lower()
    plain = re.sub(r"[\u2010-\u2015\u2212]", "-", plain)
    parts = re.split(r"[(),;]", _DEED.sub(_spelt_out, plain))
    spoken = [words for part in parts if (words := " ".join(re.split(r"[\s_/-]+", part)).strip(" ."))]
    return any(map(_OPEN.fullmatch, spoken)) and all(_OPEN.fullmatch(part) or part in _REMARKS for part in spoken)


def name_of_deed(text: str) -> str | None:
    """Return `CC-BY-SA`, `CC0` … for the address of a licence's deed that stands alone; else None."""
    deed = _DEED.fullmatch(text.strip().lower())
    return None if deed is None else _PUBLIC_DOMAIN_DEEDS.get(deed[1], f"CC-{deed[1].upper()}")


def _spelt_out(deed: re.Match[str]) -> str:
    name = _PUBLIC_DOMAIN_DEEDS.get(deed[1], f"cc {deed[1]}")
    return f", {name} {deed[2] or ''},".lower()
