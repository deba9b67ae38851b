"""The package's front door: public names, and an import that is over at once."""

import subprocess
import sys
from importlib.metadata import version

import pytest

import whisper_sae_steer


def test_importing_it_imports_no_heavy_library():
    code = (
        "import sys, whisper_sae_steer as w; w.__version__; dir(w);"
        "print(*{'torch', 'numpy', 'ctranslate2', 'whisper'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_public_names_are_there_when_asked_for():
    for name in whisper_sae_steer.__all__:
        assert getattr(whisper_sae_steer, name).__name__ == name
        assert name in dir(whisper_sae_steer)
    assert whisper_sae_steer.__version__ == version("whisper-sae-steer")
    assert {"base", "tiny.en", "large-v3"} <= set(whisper_sae_steer.available_models())


def test_a_module_of_a_public_name_does_not_hide_it():
    code = (
        "import whisper_sae_steer.attach, whisper_sae_steer as w;"
        "from whisper_sae_steer.attach import attach; print(w.attach is attach)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"


def test_other_names_are_not():
    with pytest.raises(AttributeError, match="has no attribute 'no_such_name'"):
        _ = whisper_sae_steer.no_such_name
