"""`python -m specdec_ref`: the same as `specdec`."""

import sys

from specdec_ref.cli import main

sys.exit(main())
