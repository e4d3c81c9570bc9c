"""Recordings in, transcripts and subtitles out: `slam-asr transcribe MODEL FILES...`."""
