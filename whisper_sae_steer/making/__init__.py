"""From a Whisper model to a steering pack that was measured and installed, in one command."""
