"""`python -m whisper_sae_steer` is the command `whisper-sae-steer`."""

import sys

from .cli import main

sys.exit(main())
