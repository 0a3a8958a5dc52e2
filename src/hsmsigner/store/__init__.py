"""The durable store behind operations/ports/store.py: SQLAlchemy Core on SQLite, migrations by Alembic."""
