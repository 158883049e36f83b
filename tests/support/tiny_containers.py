"""Recordings as telephones and browsers write them, with PyAV: m4a, aac, webm, 3gp, amr, mp4 with a video."""

from pathlib import Path

import numpy as np

CODECS = {  # suffix -> codec, container
    ".m4a": ("aac", "ipod"),
    ".mp4": ("aac", "mp4"),
    ".mov": ("aac", "mov"),
    ".aac": ("aac", "adts"),
    ".webm": ("libopus", "webm"),
    ".mka": ("libmp3lame", "matroska"),
    ".3gp": ("libopencore_amrnb", "3gp"),
    ".amr": ("libopencore_amrnb", "amr"),
    ".wma": ("wmav2", "asf"),
    ".ac3": ("ac3", "ac3"),
    ".wv": ("wavpack", "wv"),
}


def write(
    path: Path,
    samples: np.ndarray,
    rate: int,
    codec: str | None = None,
    options: dict[str, str] | None = None,
    *,
    video: bool = False,
) -> Path:
    """Write float32 [samples] or [samples, channels]; the suffix chooses codec and container. Returns the path."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    usual, container = CODECS[path.suffix]
    values = np.atleast_2d(samples.T).astype(np.float32)
    layout = {1: "mono", 2: "stereo"}[len(values)]
    with av.open(str(path), "w", format=container, options=options or {}) as file:
        track = file.add_stream(codec or usual, rate=rate, layout=layout)
        if track.codec_context.name == "wmav2":
            track.bit_rate = 64_000
        pictures = file.add_stream("mpeg4", rate=10) if video else None
        if pictures is not None:
            pictures.width, pictures.height, pictures.pix_fmt = 32, 32, "yuv420p"
            for _ in range(round(10 * values.shape[1] / rate)):
                image = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
                file.mux(pictures.encode(image))
            file.mux(pictures.encode(None))
        whole = av.AudioFrame.from_ndarray(np.ascontiguousarray(values), format="fltp", layout=layout)
        whole.sample_rate, whole.pts = rate, 0
        converter = av.AudioResampler(track.format, layout, rate, frame_size=track.codec_context.frame_size or 1024)
        for frame in [*converter.resample(whole), *converter.resample(None)]:
            file.mux(track.encode(frame))
        file.mux(track.encode(None))
    return path
