"""Write a folder of synthetic non-speech, ready for `calibrate --nonspeech`.

python calibration/synthetic.py OUT [--n 200] [--seed 0]
"""

import argparse
import sys

from whisper_sae_steer.audio.synthetic import write_folder
from whisper_sae_steer.errors import SteerError


def main() -> int:
    parser = argparse.ArgumentParser(description="write synthetic non-speech as 16 kHz WAV")
    parser.add_argument("out", help="folder for the clips and their manifest.tsv")
    parser.add_argument("--n", type=int, default=200, help="number of clips (default: 200)")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other clips")
    parser.add_argument("--split", choices=["calib", "dev"], default="calib")
    args = parser.parse_args()
    try:
        print(write_folder(args.out, args.n, args.seed, split=args.split))
    except (SteerError, ValueError) as error:
        print(f"synthetic.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
