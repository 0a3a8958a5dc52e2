"""PKCS#11: module, sessions, mechanisms, the worker process, and the client that frontends use. Handles stay here."""
