"""Schema changes, run by Alembic at every start."""
