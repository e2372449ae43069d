"""``python -m ofa_deploy``."""

from ofa_deploy.cli.main import main

if __name__ == "__main__":
    main()
