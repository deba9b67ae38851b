"""Word error rate: what steering costs on speech. Same as `whisper-sae-steer bench wer`."""

import sys

from whisper_sae_steer.bench.command import run_script

if __name__ == "__main__":
    sys.exit(run_script("wer"))
