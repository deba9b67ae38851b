"""What else keeps Whisper quiet, on the same clips."""
