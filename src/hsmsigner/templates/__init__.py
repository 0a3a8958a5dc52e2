"""The files that `hsmsigner init` writes, with $placeholders; read through importlib.resources."""
