"""Keccak-256 as Ethereum uses it: the sponge of FIPS 202 with the padding it had before. Neither library has it."""

from __future__ import annotations

_RATE = 136
_MASK = (1 << 64) - 1
_Lanes = list[list[int]]


def keccak256(message: bytes) -> bytes:
    """Hash a message; 32 bytes."""
    padded = bytearray(message + b"\x01" + bytes(-(len(message) + 1) % _RATE))
    padded[-1] |= 0x80
    lanes = [[0] * 5 for _ in range(5)]
    for start in range(0, len(padded), _RATE):
        for index in range(_RATE // 8):
            lane = int.from_bytes(padded[start + 8 * index : start + 8 * index + 8], "little")
            lanes[index % 5][index // 5] ^= lane
        lanes = _permute(lanes)
    return b"".join(lanes[index][0].to_bytes(8, "little") for index in range(4))


def _permute(lanes: _Lanes) -> _Lanes:
    """Keccak-f[1600], FIPS 202 section 3.3; `lanes[x][y]`. The round constants come from the shift register."""
    register = 1
    for _ in range(24):
        columns = [a ^ b ^ c ^ d ^ e for a, b, c, d, e in lanes]
        parities = [columns[x - 1] ^ _rotate(columns[(x + 1) % 5], 1) for x in range(5)]
        lanes = [[lane ^ parities[x] for lane in lanes[x]] for x in range(5)]
        x, y, current = 1, 0, lanes[1][0]
        for step in range(24):
            x, y = y, (2 * x + 3 * y) % 5
            current, lanes[x][y] = lanes[x][y], _rotate(current, (step + 1) * (step + 2) // 2)
        for row in range(5):
            line = [lanes[column][row] for column in range(5)]
            for column in range(5):
                lanes[column][row] = line[column] ^ (~line[(column + 1) % 5] & _MASK & line[(column + 2) % 5])
        for bit in range(7):
            register = (register << 1) ^ ((register >> 7) * 0x171)
            if register & 2:
                lanes[0][0] ^= 1 << ((1 << bit) - 1)
    return lanes


def _rotate(lane: int, by: int) -> int:
    return ((lane << by % 64) | (lane >> (64 - by % 64))) & _MASK
