"""Migrations, oldest first. Each runs on a store full of data and is never edited once released."""
