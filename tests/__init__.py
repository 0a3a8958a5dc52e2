"""Tests tell the stories of the promises in docs/architecture.md."""
