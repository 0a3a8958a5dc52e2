"""What an auditor trusts: the log's key, the witnesses, and how many of them are enough."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from cryptography.exceptions import InvalidSignature

from hsmsigner.verifier.fault import VerificationError, shown
from hsmsigner.verifier.note import Checkpoint, VerificationKey, parse_checkpoint


@dataclass(frozen=True, slots=True)
class Trust:
    """Keys of one log, and its witnesses.

    `keys` may sign any checkpoint; `earlier` are versions of the log's key before the trusted ones, which trusted ones
    vouch for: they may have signed what is old, but not the newest checkpoint. `quorum` witnesses are wanted there.
    """

    keys: tuple[VerificationKey, ...]
    witnesses: tuple[VerificationKey, ...] = ()
    quorum: int = 0
    earlier: tuple[VerificationKey, ...] = ()

    @property
    def origin(self) -> str:
        """The log's name."""
        return self.keys[0].name

    def following(self, later: Iterable[VerificationKey], earlier: Iterable[VerificationKey]) -> Trust:
        """The same with the versions that the log's key led to and came from."""
        keys = dict.fromkeys((*self.keys, *later))
        return replace(self, keys=tuple(keys), earlier=tuple(key for key in earlier if key not in keys))

    def open(self, note: bytes, what: str, *, is_newest: bool = True) -> OpenCheckpoint:
        """Read a checkpoint and check its signatures; `what` names it in errors.

        Raises:
            VerificationError: `format`, `origin`, `signature` or `witness`.
        """
        checkpoint = parse_checkpoint(note, what)
        if checkpoint.origin != self.origin:
            raise VerificationError(
                "origin",
                None,
                f"{what} is of the log {shown(checkpoint.origin)}, and the trusted key of {shown(self.origin)}",
            )
        signed = False
        witnessed: dict[str, int] = {}
        for line in checkpoint.signatures:
            key = self._known(line.name, line.key_id, is_newest=is_newest)
            if key is None:
                continue
            try:
                time = key.verify(checkpoint.text, line.signature)
            except InvalidSignature as error:
                raise VerificationError(
                    "witness" if key.is_witness else "signature",
                    None,
                    f"{what}: the signature of {shown(key.name)} (key {key.key_id.hex()}) is wrong: it was forged, or"
                    " the text was changed",
                ) from error
            if key.is_witness:
                witnessed[key.name] = time
            else:
                signed = True
        if not signed:
            raise VerificationError("signature", None, f"{what} is signed by no trusted key of {shown(self.origin)}")
        if is_newest and len(witnessed) < self.quorum:
            raise VerificationError(
                "witness",
                None,
                f"{what} of size {checkpoint.size} is signed by {len(witnessed)} of the {len(self.witnesses)} trusted"
                f" witnesses, and must be by {self.quorum}: nobody else may have seen this log",
            )
        return OpenCheckpoint(checkpoint, witnessed)

    def _known(self, name: str, key_id: bytes, *, is_newest: bool) -> VerificationKey | None:
        known = (*self.keys, *self.witnesses, *(() if is_newest else self.earlier))
        return next((key for key in known if (key.name, key.key_id) == (name, key_id)), None)


@dataclass(frozen=True, slots=True)
class OpenCheckpoint:
    """A checkpoint whose signatures are good; `witnessed` is when which witness saw it (seconds since 1970)."""

    checkpoint: Checkpoint
    witnessed: dict[str, int]

    @property
    def size(self) -> int:
        """How many records it is of."""
        return self.checkpoint.size

    @property
    def root(self) -> bytes:
        """The root of their tree."""
        return self.checkpoint.root
