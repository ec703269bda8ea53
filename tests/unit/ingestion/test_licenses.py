"""Which licences are open, however they are written."""

import pytest

from audiofoundation.ingestion.licenses import YOUTUBE_CC, is_open_license

OPEN = """
CC BY | CC-BY | ccby | ＣＣ ＢＹ | CC_BY_4.0 | cc-by-sa-4.0 | BY-SA 3.0 | CC BY-NC-SA 3.0 US | CC BY 4.0.
CC BY 4.0 Deed | CC BY‑SA 4.0 | CC BY–SA 4.0 | CC0 | CC-0 | CC0 1.0 Universal | CC0-1.0
Creative Commons Zero | Creative Commons 0
public domain | publicdomain | Public Domain Mark 1.0 | PDM | PDM 1.0 | Creative Commons | creative commons license
Creative Commons Attribution 3.0 Unported License | Creative Commons Attribution-Share Alike 3.0
Creative Commons Attribution Non Commercial 4.0 International Public License
Attribution | Attribution NonCommercial | Attribution 4.0 International | Attribution 4.0 International (CC BY 4.0)
Attribution-NonCommercial-ShareAlike 3.0 International | CC BY 4.0 (https://creativecommons.org/licenses/by/4.0/)
https://creativecommons.org/licenses/by/4.0/ | http://creativecommons.org/publicdomain/zero/1.0/
https://creativecommons.org/publicdomain/mark/1.0/ | creativecommons.org/licenses/by-nc-sa/3.0/us/
https://creativecommons.org/licenses/by/4.0/deed.de | https://creativecommons.org/licenses/by/4.0/?ref=chooser
"""
CLOSED = """
CC BY-ND | CC BY‑ND 4.0 | CC BY-NC/ND | CC BYND | cc by nd | CC BY 4.0 ND | CC-BY-SA-ND | Attribution-NoDerivatives 4.0
Attribution-NonCommercial-NoDerivs | creative commons noderivs | https://creativecommons.org/licenses/by-nd/4.0/
https://creativecommons.org/licenses/by-nc-nd/4.0/ | not CC BY | no cc by | CC BY NO | CC BY 4.0 no
not Creative Commons, all rights reserved | CC BY, all rights reserved | All rights reserved | Standard
https://creativecommons.org/licenses/by/4.0/ not | https://x.org/?creativecommons.org/licenses/by/4.0/
https://creativecommons.org/licenses/by/4.0-nd | https://creativecommons.org/licenses/by/4.0/by-nd
https://creativecommons.org/licenses/by/4.0/all-rights-reserved | CC BY if | CC BY 4.0 or
creativecommons.org | Public Domain in the USA, elsewhere protected | by | CC | license | reuse allowed | (),
"""


def texts(table: str) -> list[str]:
    return [text.strip() for line in table.strip().splitlines() for text in line.split("|")]


@pytest.mark.parametrize("text", [*texts(OPEN), YOUTUBE_CC])
def test_open_licences_are_known_by_name_code_and_deed(text: str) -> None:
    assert is_open_license(text)


@pytest.mark.parametrize("text", ["", *texts(CLOSED)])
def test_what_forbids_changes_or_says_more_is_not_open(text: str) -> None:
    assert not is_open_license(text)


def test_a_hostile_text_is_judged_at_once() -> None:
    assert not is_open_license("cc by" + " sa nc" * 20_000 + " x")
    assert not is_open_license("creativecommons.org/licenses/" * 5_000)
