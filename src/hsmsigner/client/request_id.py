"""Fresh request ids."""

from __future__ import annotations

import os
import time

_VERSION = 0x7 << 76
_VARIANT = 0b10 << 62
_FIXED_BITS = 0xF << 76 | 0b11 << 62


def fresh_request_id() -> str:
    """A UUID of version 7 (RFC 9562 section 5.7): 48 bits of milliseconds, then 74 random bits.

    Ids that begin with the time lie side by side in an index, which then writes a few pages for a batch and not one for
    each request. The random bits are the system's, so forked processes differ.
    """
    milliseconds = time.time_ns() // 1_000_000
    content = milliseconds.to_bytes(6) + os.urandom(10)
    text = f"{int.from_bytes(content) & ~_FIXED_BITS | _VERSION | _VARIANT:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
