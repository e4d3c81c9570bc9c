"""A model behind HTTP, as OpenAI's clients ask for transcripts: `slam-asr serve MODEL`."""
