"""`python -m cisi_runtime.cli` is `cisi`."""

from cisi_runtime.cli.group import main

if __name__ == "__main__":
    main()
