"""False positives: text written for audio without speech. Same as `whisper-sae-steer bench fpr`."""

import sys

from whisper_sae_steer.cli import main

if __name__ == "__main__":
    sys.exit(main(["bench", "fpr", *sys.argv[1:]]))
