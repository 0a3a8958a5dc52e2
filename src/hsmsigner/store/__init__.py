"""The durable store behind operations/ports.py: SQLAlchemy Core on SQLite, migrations by Alembic."""
