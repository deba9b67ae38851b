"""Word error rate: what steering costs on speech. Same as `whisper-sae-steer bench wer`."""

import sys

from whisper_sae_steer.cli import main

if __name__ == "__main__":
    sys.exit(main(["bench", "wer", *sys.argv[1:]]))
