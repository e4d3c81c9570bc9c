"""The sound in the bytes of a file, all of it, or an `AudioError` that says what is wrong with the file.

FFmpeg decodes (PyAV's wheels carry it). It plays what is there of a damaged file without complaint, so what
was heard is compared with what the file states. A new format goes into `FORMATS`, with a test that half a
file of it is refused.
"""

import io
import re
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

av: Any
try:  # Only decoding needs it: feature lengths and text work without.
    import av
except ImportError:
    av = None

DECODING = "FFmpeg"  # Another name when files come to mean other samples: stored frames are computed anew.
BLOCK_FRAMES = 1 << 20  # Decode in blocks: an hour never lies in memory decoded.
# Less than a syllable, and more than what recorders get wrong: a size off by a header, half a last frame.
TOLERANCE_SECONDS = 0.1
# FFmpeg's names of what is read. It plays more, such as playlists with all that they point to.
FORMATS = "wav,w64,aiff,au,nistsphere,caf,flac,mp3,aac,amr,ogg,mov,matroska,asf"
READ = "wav, flac, mp3, ogg, opus, m4a, aac, amr, mp4, mov, webm, mkv, wma, aiff, au, caf, w64 and sphere"
UNREAD = {  # how files of other kinds begin -> what they are, and what to do
    b"version https://git-lfs": "It is a pointer of Git LFS: `git lfs pull` fetches the audio.",
    b"<": "It is a web page or another text, as servers send instead of audio: fetch it again.",
    b"PK\3\4": "It is a zip archive: unpack it.",
    b"\x1f\x8b": "It is packed by gzip: unpack it.",
    b"MThd": "It is MIDI, notes without sound: a synthesiser such as fluidsynth makes a wav of them.",
    b"NIST_1A": "Its samples are packed in a way that `sph2pipe -f wav` unpacks.",
    b"RIFX": "It is a wav of big-endian samples, which FFmpeg takes for noise: `sox FILE FILE.flac` helps.",
    b"#!SILK": "It is SILK, of a messenger: a SILK decoder makes a wav of it.",
    b"\2#!SILK": "It is SILK, of a messenger: a SILK decoder makes a wav of it.",
}
UNKNOWN_BYTES = 0x7FFFF000  # Streaming writers put this or more where a size is not known yet.
MP3_DECODER_DELAY = 529  # samples; FFmpeg takes it off only where the encoder states its own delay beside it
# What files state, once for each that was joined: of an mp3 whether frames are counted (bit 0), and how many;
# of FLAC the samples (the last 36 bits); of an Ogg page its flags, and the samples up to its end.
XING = re.compile(rb"\xff[\xe2-\xff].{11,36}?(?:Xing|Info)\0\0\0(.)(.{4})", re.DOTALL)
FLAC = re.compile(rb"fLaC[\0\x80]\0\0\x22.{10}(.{8})", re.DOTALL)
MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
OGG = re.compile(rb"OggS\0(.)(.{8})", re.DOTALL)
ASF_FILE = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")  # begins the object that states size and length
MATROSKA_LENGTH = re.compile(rb"\x44\x89(?:\x84(?!\0{4})|\x88(?!\0{8}))")  # an id, a size, and what is not 0
# Some need not state their length: mp3, aac, matroska, mp4 in fragments. With zeros behind, a torn end shows.
OPEN_ENDED = re.compile(rb"ID3|\xff[\xe0-\xff]|\x1aE\xdf\xa3|.{4}(?:ftyp|styp|moof)", re.DOTALL)
PADDING, PADDED = bytes(1 << 16), ("mp3", "aac", "matroska", "mov")
# The size of a wav's samples, and how many bits of it are valid, which FFmpeg takes for the size.
VALID_BITS = re.compile(rb"(fmt (?:.{4}|.{20})\xfe\xff.{12}(..)\x16\0)..", re.DOTALL)
BEGINNINGS = {  # of files that others are joined with, by FFmpeg's name of the format or codec
    "wav": re.compile(rb"RIFF.{4}WAVE", re.DOTALL), "aiff": re.compile(rb"FORM.{4}AIF", re.DOTALL),
    "ogg": re.compile(rb"OggS\0\x02\0{8}"), "flac": re.compile(rb"fLaC[\0\x80]\0\0\x22"),
    "mov": re.compile(rb"ftyp(?:M4A |isom|mp4)"), "mp3": XING,
}  # fmt: skip
TAGS = (b"ID3", b"TAG", b"APETAGEX", b"LYRICSBEGIN")  # between the frames of an mp3

Blocks = Iterator[tuple[int, np.ndarray]]  # rate in Hz, samples (n, channels)


class AudioError(ValueError):
    """Audio that cannot be used; `reason` is one of `REASONS`."""

    REASONS = (
        "missing file", "unreachable", "unreadable", "truncated", "empty", "not finite", "beyond scale",
    )  # fmt: skip

    def __init__(self, message: str, reason: str):
        super().__init__(message)
        self.reason = reason


def decode_file(encoded: bytes, name: str) -> Blocks:
    """The bytes of a file, of this name in messages -> its samples, block by block."""
    if av is None:
        raise ImportError("Decoding audio needs PyAV and soxr: `pip install av soxr`.")
    if not encoded:
        raise AudioError(f"{name}: the file has no bytes.", reason="empty")
    if cut := _cut_short(encoded):
        raise _truncated(name, cut)
    if encoded[:4] in (b"RIFF", b"RF64", b"BW64", b"riff"):
        encoded = VALID_BITS.sub(rb"\1\2", encoded, count=1)
    is_open_ended = bool(OPEN_ENDED.match(encoded)) and not (encoded[:3] == b"ID3" and FLAC.search(encoded))
    mp3_frames = 0
    if is_open_ended and encoded[:1] in b"I\xff":
        mp3_frames = sum(int.from_bytes(tag[2]) for tag in XING.finditer(encoded) if tag[1][0] & 1)
    file = io.BytesIO(encoded + PADDING if is_open_ended and not mp3_frames else encoded)
    if encoded[:4] == b"RIFX":
        raise _unreadable(encoded, name)
    try:
        container = av.open(file, metadata_errors="replace", options={"format_whitelist": FORMATS})
    except av.error.FFmpegError as error:
        raise _unreadable(encoded, name) from error
    with container:
        tracks = container.streams.audio
        if len(tracks) != 1:
            what = f"holds {len(tracks)} tracks of sound where one is expected"
            advice = "Of several, `ffmpeg -i FILE -map 0:a:0 FILE.flac` takes the first."
            raise AudioError(f"{name}: {what}. {advice}", reason="unreadable")
        if tracks[0].codec_context is None or not tracks[0].rate:
            raise AudioError(f"{name}: FFmpeg cannot decode how its sound is coded.", reason="unreadable")
        yield from _Playback(container, encoded, name, mp3_frames).blocks()


def _unreadable(encoded: bytes, name: str) -> AudioError:
    advice = [advice for start, advice in UNREAD.items() if encoded[:99].lstrip().startswith(start)]
    advice += [f"These are read: {READ}. `ffmpeg -i FILE FILE.flac` converts most others."]
    return AudioError(f"{name}: not readable as audio. {advice[0]}", reason="unreadable")


def _cut_short(encoded: bytes) -> str | None:
    """What shows before decoding that the end of a file is missing, else None."""
    if encoded[:4] == b"OggS":
        return _lost_of_ogg(encoded)
    if encoded[4:8] == b"ftyp":  # ISO/IEC 14496-12: a row of boxes, each with its size in front.
        position, size = 0, 8
        # What is no box may stand behind the last, such as a tag.
        while size >= 8 and encoded[position + 4 : position + 8].isalnum():
            size = int.from_bytes(encoded[position : position + 4])
            size = int.from_bytes(encoded[position + 8 : position + 16]) if size == 1 else size
            position += size
        if position > len(encoded) or b"moov" not in encoded:
            return "its last box is not whole or its index (moov) is missing"
    if encoded[:4] == b"\x1aE\xdf\xa3":  # RFC 8794: an id, then a size whose first byte says how long it is.
        start = encoded.find(b"\x18S\x80g") + 4  # of the segment, which holds all but the file's head
        length = 9 - int.from_bytes(encoded[start : start + 1]).bit_length()
        size = int.from_bytes(encoded[start : start + length]) % (unknown := 1 << 7 * length)
        if size < unknown - 1 and start + length + size > len(encoded):
            return "its segment is not whole"
    if encoded[:4] == b"0&\xb2u" and (size := _stated_by_asf(encoded)[0]) > len(encoded):
        return f"{len(encoded):,} of its {size:,} bytes are there"
    return None


def _lost_of_ogg(encoded: bytes) -> str | None:
    """RFC 3533: pages, each with its size and its number; flag 2 begins a stream and flag 4 ends it."""
    position, open_streams, numbers = 0, 0, {}
    while (page := encoded[position : position + 27])[:4] == b"OggS" and len(page) == 27:
        end = position + 27 + page[26] + sum(encoded[position + 27 : position + 27 + page[26]])
        stream, number = page[14:18], int.from_bytes(page[18:22], "little")
        if end <= len(encoded) and _ogg_checksum(encoded[position:end]) != page[22:26]:
            return f"its page {number} is damaged"
        if not page[5] & 2 and number != numbers.get(stream, number):
            return f"its page {numbers[stream]} is missing"
        numbers[stream] = number + 1
        open_streams += (page[5] >> 1 & 1) - (page[5] >> 2 & 1)
        position = end
    if position > len(encoded) or encoded.find(b"OggS", position) >= 0:
        return "one of its pages is not whole"
    return "the page that ends the stream is missing" if open_streams > 0 else None


def _stated_by_asf(encoded: bytes) -> tuple[int, float]:
    """The bytes of a file and the seconds of its sound; 0 of a broadcast, which knows neither."""
    start = encoded.find(ASF_FILE)
    size, ticks, silent, flags = (
        int.from_bytes(encoded[start + at : start + at + 8], "little") for at in (40, 64, 80, 88)
    )
    if start < 0 or flags & 1:
        return 0, 0.0
    return size, max(ticks / 1e7 - silent / 1e3, 0.0)  # it counts the milliseconds before the start


def _ogg_checksum(page: bytes) -> bytes:
    """The CRC-32 of a page, its own left out, first bit first; zlib takes the last bit of a byte first."""
    bits = (page[:22] + bytes(4) + page[26:]).translate(MIRRORED)
    return (zlib.crc32(bits, 0xFFFFFFFF) ^ 0xFFFFFFFF).to_bytes(4, "little").translate(MIRRORED)[::-1]


class _Playback:
    """Decodes a file's one track, and compares what was heard with what the file states."""

    def __init__(self, container: Any, encoded: bytes, name: str, mp3_frames: int):
        self.container, self.encoded, self.name, self.mp3_frames = container, encoded, name, mp3_frames
        self.track = container.streams.audio[0]
        self.format = container.format.name.split(",")[0]
        self.start, self.end = -1, 0  # of the coded sound among the bytes
        self.heard, self.frames_heard = 0.0, 0  # seconds; frames of an mp3
        self.gaps, self.gap = [0], 0  # bytes between sound that are none; those since the last sound
        self.ends_in_sound = True

    def blocks(self) -> Blocks:
        is_mp3 = self.format == "mp3" and self.track.codec_context.name.startswith("mp3")
        skipped = MP3_DECODER_DELAY if is_mp3 and not self.track.start_time else 0
        queue, kind = None, None
        for frame in self.frames():
            frame.pts = None  # A queue would compare it with the number of its samples.
            frame_kind = frame.sample_rate, frame.format.name, frame.layout.name
            if queue is not None and (kind != frame_kind or queue.samples >= BLOCK_FRAMES):
                yield queue.sample_rate, _as_floats(queue.read())[skipped:]
                queue, skipped = None, 0
            queue, kind = queue or av.AudioFifo(), frame_kind
            queue.write(frame)
        if queue is not None:
            yield queue.sample_rate, _as_floats(queue.read())[skipped:]
        self.check_end()

    def frames(self) -> Iterator[Any]:
        try:
            for packet in self.container.demux():
                end = packet.pos + packet.size if packet.size and packet.pos is not None else 0
                if end > len(self.encoded) and self.format in PADDED and self.is_sound(packet):
                    raise self.truncated("there the file is torn")
                if packet.stream_index != self.track.index:
                    continue
                if end:
                    self.start = packet.pos if self.start < 0 else self.start
                    self.end = max(self.end, end)
                yield from self.decoded(packet)
        except av.error.FFmpegError as error:
            raise self.truncated(f"there it cannot be read on ({error.strerror})") from error

    def decoded(self, packet: Any) -> list[Any]:
        try:
            frames = packet.decode()
        except av.error.FFmpegError:
            if packet.size and not self.encoded[packet.pos :].startswith(TAGS):
                self.gap, self.ends_in_sound = self.gap + packet.size, self.is_sound(packet)
            return []
        if frames:
            self.frames_heard += 1
            self.heard += sum(frame.samples / frame.sample_rate for frame in frames)
            self.gaps, self.gap = [*self.gaps, self.gap] if self.gap else self.gaps, 0
        return frames

    def is_sound(self, packet: Any) -> bool:
        """Not what is behind the last frame, which FFmpeg hands on like a frame."""
        return self.format not in ("mp3", "aac") or self.encoded[packet.pos : packet.pos + 1] == b"\xff"

    def check_end(self) -> None:
        heard, stated = self.heard, self.stated_seconds()
        if self.mp3_frames:  # Frames are counted: what is taken off at the ends is not missing.
            seconds = self.track.codec_context.frame_size / self.track.rate
            heard, stated = self.frames_heard * seconds, self.mp3_frames * seconds
        if stated - heard > TOLERANCE_SECONDS:
            raise _truncated(self.name, f"{heard:.2f} of the {stated:.2f} s that it states are there")
        if not heard:
            return
        self.check_nothing_follows()
        longest, lost = (heard * count(self.gaps) / (self.end - self.start) for count in (max, sum))
        if not stated and (longest > TOLERANCE_SECONDS or lost > heard / 20):
            raise self.truncated(f"{lost:.2f} s between are damaged")
        if not stated and self.gap and self.ends_in_sound:
            raise self.truncated("there the file is torn")

    def check_nothing_follows(self) -> None:
        """FFmpeg plays no second file of another kind, and ends where the header of some formats says so."""
        kinds = self.format, self.track.codec_context.name.removesuffix("float")
        is_more = any(
            beginning.search(self.encoded, self.start)
            for kind, beginning in BEGINNINGS.items()
            if kind not in kinds
        )
        rest = self.encoded[self.end :].strip(b"\0")
        if self.format in ("wav", "w64", "aiff", "caf", "mov", "asf"):
            is_more |= (self.encoded[4:8] if self.format == "mov" else self.encoded[:4]) in rest
        if self.format == "wav" and not re.match(rb"[\w ~-]{4}", rest):  # which is the name of a chunk
            is_more |= len(rest) / (self.end - self.start) * self.heard > TOLERANCE_SECONDS
        if is_more:
            what = (
                f"goes on behind the {self.heard:.2f} s that its header states, as files do that were joined"
            )
            raise AudioError(f"{self.name}: {what} or never finished. Export it again.", reason="unreadable")

    def stated_seconds(self) -> float:
        """How long the track is by the file's own word; 0 where it gives none."""
        if self.start > 0 and (stated := _stated_bytes(self.encoded, self.start)):
            decoded = len(self.encoded) - self.start - sum(self.gaps) - self.gap
            return self.heard * stated / max(decoded, 1)
        if self.format == "flac":
            return (
                sum(int.from_bytes(head[1]) % 2**36 for head in FLAC.finditer(self.encoded)) / self.track.rate
            )
        if self.format == "ogg" and len(self.container.streams) == 1:
            ends = [
                int.from_bytes(page[2], "little") for page in OGG.finditer(self.encoded) if page[1][0] & 4
            ]
            if len(ends) > 1:  # joined; of one, FFmpeg knows where it begins
                return sum(ends) / self.track.rate
        if self.format in ("aiff", "au", "nistsphere", "ogg", "mov"):
            return float((self.track.duration or 0) * (self.track.time_base or 0))
        if self.container.streams.video:
            return 0.0
        if self.format == "asf":
            return _stated_by_asf(self.encoded)[1]
        # Of a file without a length FFmpeg gives a guess, from size and bit rate.
        if self.format == "matroska" and MATROSKA_LENGTH.search(self.encoded[: self.start]):
            return (self.container.duration or 0) / av.time_base
        return 0.0

    def truncated(self, evidence: str) -> AudioError:
        return _truncated(self.name, f"{self.heard:.2f} s were heard, and {evidence}")


def _truncated(name: str, evidence: str) -> AudioError:
    return AudioError(f"{name}: truncated, {evidence}. Fetch or export the clip again.", reason="truncated")


def _stated_bytes(encoded: bytes, start: int) -> int:
    """How many bytes of samples from `start` on a header promises, where FFmpeg believes the file instead."""
    if encoded[:4] == b"RIFF":
        stated = int.from_bytes(encoded[start - 4 : start], "little")
        return stated if stated < UNKNOWN_BYTES else 0
    if encoded[:4] in (b"RF64", b"BW64"):  # in the chunk `ds64`, which comes first
        return int.from_bytes(encoded[28:36], "little")
    if encoded[:4] == b"riff":  # Wave64 counts the chunk's head of 24 bytes
        return int.from_bytes(encoded[start - 8 : start], "little") - 24
    if encoded[:4] == b"caff":  # CAF counts the number of edits; -1 is unknown
        return max(int.from_bytes(encoded[start - 12 : start - 4], "big", signed=True) - 4, 0)
    return 0


def _as_floats(frame: Any) -> np.ndarray:
    """A frame as FFmpeg decodes it -> float32 (n, channels), full scale 1."""
    channels = frame.layout.nb_channels
    if frame.format.is_planar and channels >= 8:  # PyAV would read past the last plane, and crash.
        frame = av.AudioResampler(format="flt").resample(frame)[0]
    samples = frame.to_ndarray()
    samples = samples.T if frame.format.is_planar else samples.reshape(-1, channels)
    if samples.dtype.kind == "u":
        return (samples.astype(np.float32) - 128) / 128
    if samples.dtype.kind == "i":
        samples = samples / 2.0 ** (8 * samples.itemsize - 1)
    with np.errstate(over="ignore"):
        return samples.astype(np.float32, copy=False)
