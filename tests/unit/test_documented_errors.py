"""docs/errors.md, errors.py and api/status.py say the same."""

from __future__ import annotations

import re
from pathlib import Path

from hsmsigner.api.status import CODES
from hsmsigner.errors import Reason

PAGE = Path(__file__).parents[2] / "docs" / "errors.md"


def test_every_reason_is_documented_once_with_its_code() -> None:
    rows = re.findall(r"^\| `([A-Z_]+)` \| `([A-Z_]+)` \|", PAGE.read_text("utf-8"), re.MULTILINE)

    assert dict(rows) == {reason.value: CODES[reason].name for reason in Reason}
    assert len(rows) == len(Reason)
