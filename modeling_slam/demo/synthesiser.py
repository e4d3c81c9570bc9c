"""The demo's voices: text to samples by eSpeak NG, which pip brings for every platform.

A voice is a language, one of eSpeak's voice variants (speaker), a rate and a pitch. A little of the sound
comes from the C library's random numbers, which eSpeak seeds with its process id, and from what was spoken
before: `reseed` starts them anew, so a process that speaks the same texts in the same order, with one
version of the library, gives the same samples. The variants f2, f3, f5, whisper and some others still
differ and are not used.

Source: eSpeak NG, https://github.com/espeak-ng/espeak-ng (speak_lib.h describes the calls)
"""

import ctypes
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soxr

from modeling_slam.model.audio_lengths import SAMPLING_RATE

# speak_lib.h
RETRIEVE_SAMPLES = 1
RATE, PITCH = 1, 3
TEXT_IS_UTF8 = 1
BY_CHARACTER = 1
SEED = 1

ESPEAK_VOICES = {"en": "gmw/en-US", "nl": "gmw/nl", "da": "gmq/da"}
CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


@dataclass(frozen=True)
class Voice:
    """`variant` is eSpeak's name of a speaker; `rate` in words per minute; `pitch` from 0 to 99."""

    language: str
    variant: str
    rate: int
    pitch: int


class Synthesiser:
    """eSpeak NG. Make one per process: the library has one state, and starting it twice blocks it."""

    def __init__(self):
        try:
            import espeakng_loader
        except ImportError as error:
            raise ImportError(
                "The demo's speech is made by eSpeak NG: `pip install espeakng-loader`. Its own speech is "
                "there without it."
            ) from error
        self.library = ctypes.CDLL(espeakng_loader.get_library_path())
        data_path = Path(espeakng_loader.get_data_path())
        self.variants = {file.name for file in (data_path / "voices" / "!v").iterdir()}
        self.espeak_rate = self.library.espeak_Initialize(RETRIEVE_SAMPLES, 0, str(data_path).encode(), 0)
        if self.espeak_rate <= 0:
            raise RuntimeError(f"eSpeak NG could not start with its data in {data_path}.")
        self.chunks: list[np.ndarray] = []
        self.callback = CALLBACK(self._collect)  # kept, or ctypes frees it
        self.library.espeak_SetSynthCallback(self.callback)

    def reseed(self) -> None:
        """Start the C library's random numbers anew."""
        ctypes.CDLL(None).srand(SEED)

    def _collect(self, samples, count: int, _events) -> int:
        if samples and count > 0:
            self.chunks.append(np.ctypeslib.as_array(samples, shape=(count,)).copy())
        return 0  # go on

    def speak(self, text: str, voice: Voice) -> np.ndarray:
        """(n,) float32 at 16 kHz in [-1, 1].

        Raises:
            ValueError: eSpeak has no such voice. RuntimeError: it made no sound.
        """
        name = f"{ESPEAK_VOICES[voice.language]}+{voice.variant}"
        # For an unknown variant eSpeak silently speaks without one.
        if voice.variant not in self.variants or self.library.espeak_SetVoiceByName(name.encode()) != 0:
            raise ValueError(f"eSpeak NG has no voice {name!r}; it has {', '.join(sorted(self.variants))}.")
        self.library.espeak_SetParameter(RATE, voice.rate, 0)
        self.library.espeak_SetParameter(PITCH, voice.pitch, 0)
        self.chunks.clear()
        encoded = text.encode()
        status = self.library.espeak_Synth(
            encoded, len(encoded) + 1, 0, BY_CHARACTER, 0, TEXT_IS_UTF8, None, None
        )
        self.library.espeak_Synchronize()
        if status != 0 or not self.chunks:
            raise RuntimeError(f"eSpeak NG made no sound of {text!r} as {name} (status {status}).")
        samples = np.concatenate(self.chunks).astype(np.float32) / 32768
        return soxr.resample(samples, self.espeak_rate, SAMPLING_RATE)
