"""``python -m assay`` is the command line; ``torchrun -m assay`` starts it in several processes."""

from assay.cli.main import main

if __name__ == "__main__":
    main()
