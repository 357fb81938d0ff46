"""Speak sentences with espeak-ng: a program of its own, run by `bm.studies.simulated.speech`.

espeak-ng is GPL-3, so bm never loads it: this small program does, and hands over files only. It
imports nothing of bm, which also keeps its start short.

Enters, as arguments: a JSON file ``{"language", "rate", "seconds", "sentences": [text, ...]}`` and
a folder. It stops after the sentence with which the given number of seconds is reached.
Leaves in the folder: ``NNN.pcm`` for each sentence (16-bit mono) and ``events.json``:
``{"sample_rate", "version", "sentences": [{"words": [[time, position, length], ...],
"phonemes": [[time, name], ...]}, ...]}``, times in ms from the start of the sentence's sound,
position and length in characters of its text.
"""

import ctypes
import json
import sys
from pathlib import Path
from typing import Any

SYNCHRONOUS = 2  # espeak_AUDIO_OUTPUT: the call returns when all is spoken
PHONEME_EVENTS_IN_IPA = 0b11
CHARACTERS_UTF8 = 1
LIST_TERMINATED, WORD, PHONEME = 0, 1, 7  # espeak_EVENT_TYPE
RATE_PARAMETER = 1


class _Label(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Label),
    ]


_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)


def speak(order: dict[str, Any], folder: Path) -> None:
    """Speak every sentence of the order into `folder`."""
    import espeakng_loader  # here: it is optional, and mypy or a reader may load this file without

    library = ctypes.CDLL(espeakng_loader.get_library_path())
    library.espeak_Info.restype = ctypes.c_char_p
    data = str(espeakng_loader.get_data_path()).encode()
    sample_rate = library.espeak_Initialize(SYNCHRONOUS, 0, data, PHONEME_EVENTS_IN_IPA)
    if sample_rate <= 0 or library.espeak_SetVoiceByName(order["language"].encode()) != 0:
        raise SystemExit(f"espeak-ng has no voice {order['language']!r} in {data.decode()}")
    library.espeak_SetParameter(RATE_PARAMETER, int(order["rate"]), 0)
    sentences: list[dict[str, list[Any]]] = []
    n_bytes = 0
    for index, text in enumerate(order["sentences"]):
        if n_bytes >= 2 * sample_rate * order["seconds"]:
            break
        sound, events = _speak_sentence(library, text)
        (folder / f"{index:03d}.pcm").write_bytes(sound)
        sentences.append(events)
        n_bytes += len(sound)
    version = library.espeak_Info(None).decode()
    report = {"sample_rate": sample_rate, "version": version, "sentences": sentences}
    (folder / "events.json").write_text(json.dumps(report))


def _speak_sentence(library: ctypes.CDLL, text: str) -> tuple[bytes, dict[str, list[Any]]]:
    sound = bytearray()
    events: dict[str, list[Any]] = {"words": [], "phonemes": []}

    def receive(samples: Any, n_samples: int, batch: Any) -> int:
        if samples and n_samples > 0:
            sound.extend(ctypes.string_at(samples, 2 * n_samples))
        index = 0
        while batch[index].type != LIST_TERMINATED:
            event = batch[index]
            if event.type == WORD:
                events["words"].append(
                    [event.audio_position, event.text_position - 1, event.length]
                )
            elif event.type == PHONEME:
                events["phonemes"].append(
                    [event.audio_position, event.id.string.decode("utf-8", "replace")]
                )
            index += 1
        return 0

    callback = _Callback(receive)  # kept alive by this name as long as the library may call it
    library.espeak_SetSynthCallback(callback)
    encoded = text.encode() + b"\0"
    library.espeak_Synth(encoded, len(encoded), 0, 1, 0, CHARACTERS_UTF8, None, None)
    return bytes(sound), events


if __name__ == "__main__":
    speak(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
