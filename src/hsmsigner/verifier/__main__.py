"""`python -m hsmsigner.verifier` is `hsmsigner-verify`."""

import sys

from hsmsigner.verifier.command import main

if __name__ == "__main__":
    sys.exit(main())
