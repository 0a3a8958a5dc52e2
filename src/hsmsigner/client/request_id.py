"""Fresh request ids."""

from __future__ import annotations

import os
import time

_RANDOM_BYTES = 10


def fresh_request_id() -> str:
    """A UUID of version 7 (RFC 9562 section 5.7): 48 bits of milliseconds, then 74 random bits.

    Of version 7, because ids that begin with the time lie side by side in the appliance's index, which then writes a
    few pages for a batch and not one for each request. The random bits are the system's, so forked processes differ.
    """
    milliseconds = time.time_ns() // 1_000_000 & 0xFFFF_FFFF_FFFF
    random = int.from_bytes(os.urandom(_RANDOM_BYTES))
    high, low = random >> 62 & 0xFFF, random & 0x3FFF_FFFF_FFFF_FFFF
    text = f"{milliseconds << 80 | 0x7 << 76 | high << 64 | 0b10 << 62 | low:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
