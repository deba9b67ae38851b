#!/usr/bin/env bash
# Makes saes/base and whisper_sae_steer/packs/base.safetensors from a manifest of audio (columns as in
# calibration/README.md): calibration/base.sh MANIFEST. Stopped, it goes on where it was.
set -euo pipefail
manifest=$1
whisper-sae-steer train "$manifest" --split calib --per_class 30 --model base --steps 2500 \
    --out saes/base --work runs/base/work
whisper-sae-steer calibrate --model base --nonspeech "$manifest" --speech "$manifest" --split calib \
    --per_class 24 --out whisper_sae_steer/packs/base.safetensors --work runs/base/windows
mv whisper_sae_steer/packs/base.html calibration/reports/
