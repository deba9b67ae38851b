#!/usr/bin/env bash
# Makes saes/tiny.en and whisper_sae_steer/packs/tiny.en.safetensors from a manifest of audio (columns as in
# calibration/README.md): calibration/tiny.en.sh MANIFEST. Stopped, it goes on where it was.
set -euo pipefail
manifest=$1
python calibration/synthetic.py runs/synthetic --n 120 --seed 100
python -m calibration.words runs/words
whisper-sae-steer train "$manifest" runs/synthetic/manifest.tsv --split calib --model tiny.en \
    --taps encoder_output block.3 --speech 2 --noise_share 0.5 --padding_share 0.05 --steps 3000 --lr 2e-3 \
    --out saes/tiny.en --work runs/tiny.en
mv saes/tiny.en/report.html calibration/reports/tiny.en-saes.html
whisper-sae-steer calibrate --base none --model tiny.en --nonspeech "$manifest" --speech "$manifest" runs/words/manifest.tsv \
    --split calib --per_class 48 --out whisper_sae_steer/packs/tiny.en.safetensors --work runs/tiny.en/windows
mv whisper_sae_steer/packs/tiny.en.html calibration/reports/
