"""False positives: text written for audio without speech. Same as `whisper-sae-steer bench fpr`."""

import sys

from whisper_sae_steer.bench.command import run_script

if __name__ == "__main__":
    sys.exit(run_script("fpr"))
