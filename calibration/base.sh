#!/usr/bin/env bash
# Makes saes/base and whisper_sae_steer/packs/base.safetensors from a manifest of audio (columns as in
# calibration/README.md): calibration/base.sh MANIFEST. Stopped, it goes on where it was.
set -euo pipefail
manifest=$1
python calibration/synthetic.py runs/synthetic --n 120 --seed 100
python -m calibration.words runs/words
whisper-sae-steer train "$manifest" runs/synthetic/manifest.tsv --split calib --model base \
    --taps encoder_output block.5 --speech 2 --noise_share 0.5 --padding_share 0.05 --steps 3000 --lr 2e-3 \
    --out saes/base --work runs/base
mv saes/base/report.html calibration/reports/base-saes.html
whisper-sae-steer calibrate --base none --model base --nonspeech "$manifest" --speech "$manifest" runs/words/manifest.tsv \
    --split calib --per_class 48 --out whisper_sae_steer/packs/base.safetensors --work runs/base/windows
mv whisper_sae_steer/packs/base.html calibration/reports/
