"""Which process of the appliance this is, and what its exit code says to the supervisor.

Run as `python -m hsmsigner.child frontend --config FILE` or `... token-worker --config FILE`.
"""

from __future__ import annotations

import argparse
import logging
import os
from pathlib import Path

from hsmsigner.config import load_settings
from hsmsigner.errors import ConfigurationError, SignerError
from hsmsigner.process import EXIT_CONFIGURATION, EXIT_RESTART
from hsmsigner.telemetry import configure_logging

_log = logging.getLogger(__name__)


def run_process() -> int:
    """Run one process of the appliance; returns its exit code.

    Each imports only its own part: the PKCS#11 module never meets gRPC, and a worker that was lost is back sooner.
    """
    parser = argparse.ArgumentParser(prog="python -m hsmsigner.child")
    parser.add_argument("role", choices=("frontend", "token-worker"))
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--accept-rollback", default="", metavar="REASON")
    arguments = parser.parse_args()
    os.umask(0o077)
    try:
        settings = load_settings(arguments.config)
        configure_logging(settings.log.level, arguments.role)
        if arguments.role == "token-worker":
            from hsmsigner.token.worker import run_token_worker

            return run_token_worker(settings)
        from hsmsigner.frontend import run_frontend_process

        return run_frontend_process(settings, arguments.accept_rollback)
    except ConfigurationError as error:
        _log.error("%s", error)
        return EXIT_CONFIGURATION
    except SignerError as error:
        _log.error("%s", error.message, exc_info=error)
        return EXIT_RESTART
