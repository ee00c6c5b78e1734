"""`python -m workbench.cli`: the command line, startable by `accelerate launch -m`."""

from workbench.cli import main

if __name__ == "__main__":
    main()
