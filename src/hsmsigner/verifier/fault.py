"""What a verification can find, each with a short constant for programs.

What was read is no log of ours, or cannot be trusted as a file:

- `missing`: a file of the export is not there.
- `path`: a file is a link, a device or no plain file.
- `format`: a file is not in its format, too large, or its compression is broken.
- `unparsable`: a record is no JSON object, or has a field twice.

The records are not those that were written:

- `changed`: this record is not the one whose hash is in the tree.
- `sequence`, `gap`, `order`: a record has another number than its place; is missing; stands in another's place.
- `previous_hash`: a record does not follow from the one before it.
- `time`: the time of a record is none, or runs backwards.
- `truncated`, `extended`: there are fewer or more records than the checkpoint counts.
- `tile`: a stored hash is not that of the records.
- `root`: the records do not have the root of the newest checkpoint (or of the tree head).
- `checkpoint`: an older checkpoint is not over these records: they were written anew after it.

The checkpoint is not the log's:

- `signature`: no trusted key of the log signed it, or a signature is wrong.
- `origin`: it is another log's.
- `witness`: too few witnesses signed it, or a witness's signature is wrong.
- `log_key`: `log-key.json` does not lead from the trusted key to the newest one.
- `rollback`: it is older than one that was seen before.
- `fork`: it contradicts one that was seen before.
- `proof`: a proof does not lead to its root.
- `receipt`: the record is not about this signature, or not at this place.

The records are those that were written, and tell of what must not happen (`hsmsigner.verifier.meaning`):

- `field`: a record lacks a field of its type.
- `authorization`: a request is authorized while it is under way, or resumed without having been interrupted.
- `outcome`: a signature ended that was not authorized, or ended before, or of another principal or key.
- `debit`: an authorization does not debit what the policy asks for.
- `quota`: more was authorized in a window than the policy in force allows.
- `policy`: revisions do not rise by one, a document has another hash, or a decision is of another revision.
- `key_state`: a version signs, or changes, in a state that does not allow it.
- `denial`: a number of refusals is not positive.

Statements of continuity have faults of their own: see `hsmsigner.verifier.continuity`.
"""

from __future__ import annotations

_LONGEST_SHOWN = 200


class VerificationError(Exception):
    """What was verified is not what it claims to be.

    `fault` is one of the constants above. `sequence` is the record at fault (of a chain of statements: the statement);
    None when the log as a whole is. With `root`, `checkpoint` and `fork` it is the first of those that may be at fault.
    """

    def __init__(self, fault: str, sequence: int | None, message: str) -> None:
        super().__init__(message)
        self.fault = fault
        self.sequence = sequence


def shown(value: object) -> str:
    """A value out of an untrusted file, short and in ASCII: it may hold what moves the cursor of a terminal."""
    text = ascii(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"
