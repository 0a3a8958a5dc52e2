"""Pure: the RFC 6962 tree over the audit records, proofs over its tiles, signed notes, checkpoints, cosignatures."""
