"""Reading the log beside the writer (`LogReader` of operations/ports/log.py).

Two connections in two threads, so that one long answer holds nobody up; searches through the whole log take turns, so
that they never take both.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from hsmsigner.errors import cannot_record
from hsmsigner.operations.ports import NO_FILTER, Checkpoint, LogFilter, LogPage
from hsmsigner.store.checkpoints import SqlCheckpointTable
from hsmsigner.store.engine import READERS
from hsmsigner.store.finders import Sought, find_some, request, signature
from hsmsigner.store.pages import read_page, records_sealed
from hsmsigner.store.state import read_size
from hsmsigner.store.threads import run_in
from hsmsigner.store.tree import read_hashes, tree_of
from hsmsigner.transparency.merkle import HASH_SIZE

T = TypeVar("T")


class SqlLogReader:
    """`LogReader` of an open store; whoever opens it sets `_reader`."""

    def __init__(self) -> None:
        self._reader: Engine | None = None
        self._read_threads = ThreadPoolExecutor(READERS, thread_name_prefix="store-read")
        self._searching = asyncio.Lock()

    async def read_log(self, start: int, limit: int, wanted: LogFilter = NO_FILTER) -> LogPage:
        return await self._read(lambda connection: read_page(connection, start, limit, wanted))

    async def find_by_request(self, request_id: str) -> list[int]:
        return await self._find(request(request_id))

    async def find_by_signature(self, signature_sha256: bytes) -> list[int]:
        return await self._find(signature(signature_sha256)) if len(signature_sha256) == HASH_SIZE else []

    async def root_at(self, size: int) -> bytes:
        return await self._read(lambda connection: tree_of(connection, size).root())

    async def inclusion_proof(self, sequence: int, size: int) -> list[bytes]:
        return await self._read(lambda connection: tree_of(connection, size).inclusion_proof(sequence))

    async def consistency_proof(self, old_size: int, new_size: int) -> list[bytes]:
        return await self._read(lambda connection: tree_of(connection, new_size).consistency_proof(old_size))

    async def read_tile(self, level: int, number: int) -> tuple[list[bytes], int]:
        def read(connection: Connection) -> tuple[list[bytes], int]:
            size = read_size(connection)
            return read_hashes(connection, size, level, number), size

        return await self._read(read)

    async def read_checkpoints(self, after_size: int, limit: int) -> Sequence[Checkpoint]:
        return await self._read(lambda connection: SqlCheckpointTable(connection).list(after_size, limit))

    async def read_newest_checkpoint(self, min_witnesses: int = 0) -> Checkpoint | None:
        return await self._read(lambda connection: SqlCheckpointTable(connection).newest_signed(min_witnesses))

    async def read_newest_cosigned(self, line_start: str) -> Checkpoint | None:
        return await self._read(lambda connection: SqlCheckpointTable(connection).newest_cosigned(line_start))

    async def _find(self, sought: Sought) -> list[int]:
        sequences: list[int] = []
        tile: int | None = 0
        sealed_below: int | None = None
        async with self._searching:
            while tile is not None:
                found = await self._read(partial(find_some, sought=sought, from_tile=tile))
                sequences += found.sequences
                sealed_below = sealed_below or found.sealed_below
                tile = found.next_tile
        if not sequences and sealed_below is not None:
            raise records_sealed(sealed_below)
        return sequences

    async def _read(self, work: Callable[[Connection], T]) -> T:
        def read() -> T:
            if self._reader is None:
                raise cannot_record()
            with self._reader.begin() as connection:
                return work(connection)

        try:
            return await run_in(self._read_threads, read)
        except SQLAlchemyError as error:
            raise cannot_record() from error
