"""Features that make Whisper write where nobody speaks."""
