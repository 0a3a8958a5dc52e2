"""The command `hsmsigner`: one file per group of commands; what they print and exit with is in output.py."""
