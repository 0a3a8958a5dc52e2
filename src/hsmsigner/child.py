"""Entry of the appliance's processes. Ties their life to the supervisor's first, before anything slow is imported.

An orphan that outlives a killed supervisor for the seconds its imports take would keep the state folder locked.
"""

from __future__ import annotations

import sys

from hsmsigner.process import die_with_supervisor


def main() -> int:
    """Run one process of the appliance; returns its exit code."""
    die_with_supervisor()
    from hsmsigner.app import run_process

    return run_process()


if __name__ == "__main__":
    sys.exit(main())
