"""The page of a model, on this machine or as a Space of the Hub: `slam-asr app MODEL`."""
