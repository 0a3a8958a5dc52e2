"""`python -m hsmsigner`: the same as the command `hsmsigner`."""

from hsmsigner.cli.main import main

if __name__ == "__main__":
    main()
