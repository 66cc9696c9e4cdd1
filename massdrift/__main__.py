"""``python -m massdrift`` is the ``massdrift`` command."""

from analyses.cli import main

if __name__ == "__main__":
    main()
