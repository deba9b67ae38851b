#!/usr/bin/env bash
# Makes saes/tiny.en and whisper_sae_steer/packs/tiny.en.safetensors from a manifest of audio (columns as in
# calibration/README.md): calibration/tiny.en.sh MANIFEST. Stopped, it goes on where it was.
set -euo pipefail
manifest=$1
whisper-sae-steer train "$manifest" --split calib --model tiny.en --steps 3000 \
    --out saes/tiny.en --work runs/tiny.en/work
whisper-sae-steer calibrate --model tiny.en --nonspeech "$manifest" --speech "$manifest" --split calib \
    --per_class 24 --out whisper_sae_steer/packs/tiny.en.safetensors --work runs/tiny.en/windows
mv whisper_sae_steer/packs/tiny.en.html calibration/reports/
