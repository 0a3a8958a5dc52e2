"""Rows of `unwanted_pairs`: what is to be destroyed should the token have it."""

from __future__ import annotations

from sqlalchemy import Connection, delete, insert, select

from hsmsigner.domain.algorithm import ALGORITHMS, SigningAlgorithm
from hsmsigner.domain.instant import Instant
from hsmsigner.domain.key import CkaId
from hsmsigner.store.schema import unwanted_pairs as table


class SqlUnwantedPairTable:
    """`UnwantedPairTable` of one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def insert(self, cka_id: CkaId, algorithm: SigningAlgorithm, now: Instant) -> None:
        if cka_id not in self.load():
            row = {"cka_id": cka_id, "algorithm": algorithm.name, "create_time": now}
            self._connection.execute(insert(table).values(**row))

    def load(self) -> dict[CkaId, SigningAlgorithm]:
        query = select(table.c.cka_id, table.c.algorithm).order_by(table.c.create_time)
        return {CkaId(cka_id): ALGORITHMS[algorithm] for cka_id, algorithm in self._connection.execute(query)}

    def delete(self, cka_id: CkaId) -> None:
        self._connection.execute(delete(table).where(table.c.cka_id == cka_id))
