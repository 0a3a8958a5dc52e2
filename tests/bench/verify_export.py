"""How long `hsmsigner-verify export` takes for a synthetic log: python -m tests.bench.verify_export [RECORDS]."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from hsmsigner.verifier.command import main
from tests.verifier.export_writer import NoteKey, Writer
from tests.verifier.logs import Fields, authorized, chained, ended, pair, published, quota

_PER_SECOND = 500
_QUOTAS = [quota("second", 2 * _PER_SECOND, 1, by_principal=True), quota("day", 10**9, 86_400)]


def entries(count: int) -> Iterator[Fields]:
    """A policy, a key, and pairs of authorization and outcome, 64 at a time as turns write them."""
    yield published(at=0, quotas=_QUOTAS)
    yield pair(at=0)
    done = 2
    while done < count:
        turn = min(64, (count - done) // 2) or 1
        at = done / 2 / _PER_SECOND
        numbers = range(done // 2, done // 2 + turn)
        for number in numbers:
            yield authorized(number, at=at, quotas=_QUOTAS, observed=(2 * _PER_SECOND, number))
        for place, number in enumerate(numbers):
            yield ended(number, done + place, at=at)
        done += 2 * turn


def run(count: int) -> int:
    """Write the export, verify it, and say how long that took."""
    key = NoteKey()
    with TemporaryDirectory() as folder:
        path = Path(folder) / "export"
        records = chained(entries(count))
        Writer(records, [key], sizes=range(1000, len(records), 1000)).write(path)
        print(f"{len(records):,} records, {sum(map(len, records)) / 2**20:.0f} MiB")  # noqa: T201 - a program
        del records
        begin_s, begin_cpu_s = time.perf_counter(), time.process_time()
        code = main(["export", str(path), "--log-key", key.vkey])
        seconds, cpu_s = time.perf_counter() - begin_s, time.process_time() - begin_cpu_s
        print(f"{seconds:.1f} s, {cpu_s:.1f} s of one core")  # noqa: T201 - a program
        return code


if __name__ == "__main__":
    sys.exit(run(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000))
