"""Every way to keep Whisper quiet on the same clips. Same as `whisper-sae-steer bench peers`."""

import sys

from whisper_sae_steer.cli import main

if __name__ == "__main__":
    sys.exit(main(["bench", "peers", *sys.argv[1:]]))
