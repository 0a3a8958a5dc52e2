"""Pure: the RFC 6962 tree over the audit records. Notes and checkpoints find their place here."""
