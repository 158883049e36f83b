"""The pictures of an open video: the frame that is shown at a time, decoded from the key frame before it.

`seek` of FFmpeg lands on a key frame before a time, on one after it, or on no key frame. So packets are read ahead,
which is cheap, and decoding begins with the last key frame that is not after the wanted time. The file is seeked only
where the wanted frame is seconds away.
"""

import heapq
from collections import deque
from itertools import chain
from typing import Any

from pipelines.errors import DataError

FAR = 8.0  # seconds; to a frame that is further away, the file is seeked
BACK = 1.0  # seconds that the first further seek goes back, if a seek landed after the wanted frame; then four times
MOST_DECODED = 20_000  # frames for one call: eleven minutes between two key frames
MOST_PACKETS = 4 * 3600 * 240  # of a file: four hours of 240 frames a second
MOST_WAITING = 1 << 29  # bytes of packets between two key frames
MOST_REFUSED = 0.1  # of the packets that the decoder may refuse; more is a damaged file
AHEAD = 17  # packets that are read after a wanted frame where only the times of frames, not of packets, are known
_SKIPPING = ("h264", "hevc", "mpeg4", "vp8")  # decoders that can leave out frames which no other frame needs


class Lost(Exception):
    """The frame that the packets promise did not come. `care` one higher finds it, or the frame before it."""


class Track:
    """The pictures of an open file, from the beginning.

    `origin` is the time of its first frame. Times are in units of `base`. With `care` 1, the file is not seeked and no
    frame is left out after a key frame; with 2, every frame from the first on is decoded.
    """

    def __init__(self, name: str, file: Any, stream: Any, container: str, origin: int = 0, care: int = 0) -> None:
        self.name, self.file, self.stream, self.care = name, file, stream, care
        self.base = stream.time_base
        self.decoder = stream.codec_context
        self.decoder.thread_count = 1  # files are read in many workers; more threads take 1.1 times the work
        # AVI knows no times: FFmpeg counts packets, which for these codecs are not in the order of the frames
        self.counted = container == "avi" and self.decoder.name in ("h264", "hevc")
        self.skips = care == 0 and container in ("mp4", "matroska") and self.decoder.name in _SKIPPING
        self.drains = self.skips and self.decoder.name == "h264"
        # a gif is decoded from its first frame, and the frames of an mpg have other times after a seek
        self.seeks = care == 0 and container not in ("gif", "mpeg")
        self.decoded = self.refused = 0
        self.shown: Any = None  # the last frame that was
        self.read_to = origin  # the largest time of a packet
        self._begin(None)

    def first(self) -> Any:
        """The first frame; its time is 0 of the video."""
        frame = self._next(None)
        if frame is None:
            raise self.empty()
        return frame

    def at(self, time: int, following: int | None = None) -> Any:
        """The last frame whose time is not after `time`, or the first frame. `time` is never below the last call's.

        `following` is the time of the next call, None if there is none. A decoder gives a frame some packets late.
        Where decoding goes on at another key frame, these packets are not decoded.
        """
        if self.seeks and (time - self.read_to) * self.base > FAR:
            self._seek(time)
        self._read_ahead(time)
        best = max((at for at in self.known if at <= time), default=None)
        if self.shown is not None and self.shown.pts == best:
            return self.shown
        if self.drains and best is not None and self._ends_with(best, following):
            self._drain(best)
        elif self.drained:
            raise Lost
        while (frame := self._next(best if self.skips else None)) is not None and frame.pts <= time:
            self.shown = frame
            self.ready.popleft()
            if frame.pts == best and not self.counted:
                break
        found = self.shown or frame
        if found is None:
            raise self.empty()
        if self.care < 2 and best is not None and found.pts != best:
            raise Lost
        return found

    def last(self, near: int | None) -> tuple[int, int, int]:
        """The time of the last frame, where it ends, and the number of frames; from about `near` on, if that is given.

        No frame is decoded.
        """
        if near is not None and self.seeks:
            self._seek(near)
        last = end = count = 0
        for packet in chain(self.waiting, self.packets):
            at = self._packet_time(packet)
            if packet.size and at is not None and not packet.is_discard:
                last, count = (at if not count else max(last, at)), count + 1
                end = max(end, at + (packet.duration or 0))
                if count > MOST_PACKETS:
                    raise DataError(f"{self.name}: more than {MOST_PACKETS:,} frames: cut it")
        return last, max(end, last), count

    def empty(self) -> DataError:
        """The error for a video of which no frame can be decoded."""
        if self.refused:
            return DataError(f"{self.name}: damaged: none of its frames can be decoded")
        return DataError(f"{self.name}: a video without frames")

    # ---- packets ----

    def _ends_with(self, best: int, following: int | None) -> bool:
        """Whether the decoder needs no packet after this frame's: no frame or another key frame follows."""
        if not any(self._packet_time(packet) == best for packet in self.waiting):
            return False
        if following is None:
            return True
        if (following - self.read_to) * self.base > FAR:
            return self.seeks
        self._read_ahead(following, jump=False)
        return any(
            packet.is_keyframe and best < (self._packet_time(packet) or best) <= following for packet in self.waiting
        )

    def _drain(self, best: int) -> None:
        """Decode up to this frame, and let the decoder give all that it holds."""
        import av

        at = None
        while at != best:
            at = self._packet_time(self.waiting[0])
            self._decode(best)
        try:
            for frame in self.decoder.decode(None):
                self._take(frame)
        except (av.FFmpegError, EOFError):
            pass
        self.decoder.flush_buffers()
        self.drained = True

    def _begin(self, earliest: int | None) -> None:
        """Read packets from where the file is; frames before `earliest` need others that are not read."""
        self.packets = self.file.demux(self.stream)
        self.waiting: deque[Any] = deque()  # packets that were read, and are not decoded yet
        self.dts: int | None = None  # of the last packet: no later one has a frame before it
        self.late = 0  # packets in a row whose frames are after the wanted time
        self._restart(earliest)

    def _restart(self, earliest: int | None) -> None:
        self.earliest = earliest
        self.drained = False  # whether the decoder gave all that it held, and goes on with a key frame only
        self.known: list[int] = []  # times of the frames since the last restart
        self.order: list[int] = []  # a heap of the times of packets whose frames did not come yet
        self.ready: deque[Any] = deque()  # frames that are decoded, and were not shown
        self.shown = None

    def _seek(self, time: int) -> None:
        """Go to the last key frame before `time` that can be found. Raises Lost if there is none."""
        import av

        for step in range(8):
            back = int(BACK * 4 ** (step - 1) / self.base) if step else 0
            try:
                self.file.seek(time - back, stream=self.stream)
            except (av.FFmpegError, OverflowError):
                break
            self.decoder.flush_buffers()
            self._begin(None)
            key = next((packet for packet in self.packets if packet.is_keyframe and packet.size), None)
            at = None if key is None else self._packet_time(key)
            if at is not None and at <= time:
                self.earliest = at
                self._wait(key)
                return
        raise Lost

    def _read_ahead(self, time: int, jump: bool = True) -> None:
        """Read packets until all key frames up to `time` are known. With `jump`, go on with the last of these."""
        import av

        if jump:
            self._jump(time)
        self.late = 0
        size = 0
        while self.dts is None or self.dts <= time:
            try:
                packet = next(self.packets, None)
            except av.FFmpegError:  # the end of a file that was cut off
                packet = None
            if packet is None:
                return
            if not packet.size:
                continue
            self._wait(packet)
            size += packet.size
            if jump and packet.is_keyframe and self._jump(time):
                size = 0
            if size > MOST_WAITING or len(self.waiting) > MOST_DECODED:
                raise self.too_long(time)
            at = self._packet_time(packet)
            self.late = self.late + 1 if at is None or at > time else 0
            if self.late > AHEAD:
                return

    def _jump(self, time: int) -> bool:
        """Go on at the last key frame that waits and is not after `time`. Whether packets were left out."""
        if self.care == 2:
            return False
        for place in range(len(self.waiting) - 1, -1 if self.drained else 0, -1):
            packet = self.waiting[place]
            at = self._packet_time(packet)
            if packet.is_keyframe and at is not None and at <= time and not packet.is_discard:
                kept = list(self.waiting)[place:]
                self.decoder.flush_buffers()
                self._restart(at)
                self.waiting.clear()
                for one in kept:
                    self._wait(one)
                return True
        return False

    def _wait(self, packet: Any) -> None:
        self.waiting.append(packet)
        self.dts = packet.dts if packet.dts is not None else self.dts
        at = self._packet_time(packet)
        if at is not None and not packet.is_discard:
            self.read_to = max(self.read_to, at)
            self.known.append(at)

    def _packet_time(self, packet: Any) -> int | None:
        """When the frame of a packet is shown; None if it does not say."""
        at = packet.dts if self.counted or packet.pts is None else packet.pts
        return None if at is None else int(at)

    # ---- frames ----

    def _next(self, wanted: int | None) -> Any:
        """The next frame, which stays in `ready`; None at the end. Frames before `wanted` may be left out."""
        while not self.ready:
            if not self._decode(wanted):
                return None
        return self.ready[0]

    def _decode(self, wanted: int | None) -> bool:
        """Give the decoder one packet. False at the end of the file."""
        import av

        if not self.waiting:
            try:
                packet = next((packet for packet in self.packets if packet.size), None)
            except av.FFmpegError:
                packet = None
            if packet is not None:
                self._wait(packet)
        packet = self.waiting.popleft() if self.waiting else None
        at = None if packet is None else self._packet_time(packet)
        if self.counted and at is not None:
            heapq.heappush(self.order, at)
        if self.skips:
            self.decoder.skip_frame = "NONREF" if wanted is not None and at is not None and at < wanted else "DEFAULT"
        try:
            frames = self.decoder.decode(packet)
        except EOFError:  # it gave its last frames before
            return False
        except av.FFmpegError:
            frames = []
            self.refused += 1
            if packet is not None and self.refused > 3 + MOST_REFUSED * self.decoded:
                raise DataError(
                    f"{self.name}: damaged: {self.refused} of {self.decoded + 1} packets cannot be decoded"
                ) from None
        self.decoded += 1
        if self.decoded > MOST_DECODED:
            raise self.too_long(at or 0)
        for frame in frames:
            self._take(frame)
        return packet is not None or bool(frames)

    def _take(self, frame: Any) -> None:
        before = self.ready[-1] if self.ready else self.shown
        following = 0 if before is None else before.pts + 1
        if self.counted:
            frame.pts = heapq.heappop(self.order) if self.order else following
        elif frame.pts is None:
            frame.pts = frame.dts if frame.dts is not None else following
        if self.earliest is None or frame.pts >= self.earliest:
            self.ready.append(frame)

    def too_long(self, time: int) -> DataError:
        """The error for a file with too few key frames."""
        return DataError(
            f"{self.name}: too much to decode for the frame at {float(time * self.base):.0f} seconds: the file has too "
            "few key frames: write it again, as with `ffmpeg -i x.mp4 -g 30 y.mp4`"
        )
