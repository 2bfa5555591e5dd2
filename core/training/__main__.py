"""Does what ``trainbus`` does: ``torchrun -m training run CONFIG``."""

import sys

from training.app.cli import main

if __name__ == "__main__":
    sys.exit(main())
