"""From the chunks of a video to its part of the output."""

from __future__ import annotations

from rrm_extract.errors import StoreFormatError
from rrm_extract.jobs.accounting import STAGES, Accounting, layer_columns
from rrm_extract.jobs.control import EVENTS
from rrm_extract.jobs.plan import JobPlan
from rrm_extract.jobs.schedule import VideoState
from rrm_extract.store import OutputStore, load_chunk
from rrm_extract.store.schema import Attr
from rrm_extract.video import ClipInfo

__all__ = ["assemble"]


def assemble(store: OutputStore, state: VideoState, plan: JobPlan, *, dtype: str) -> Accounting:
    """Writes the part of a video whose chunks are all on disk, one chunk at a time.

    Returns:
        What the video's layers saw.

    Raises:
        StoreWriteError: no space or no permission; the chunks stay.
        StoreFormatError: a chunk cannot be read back.
    """
    seen = Accounting(plan.layers)
    events = [f"n_{event}" for event in EVENTS]
    counts = dict.fromkeys(("n_decoded", "n_decode_errors", *events), 0)
    rotation: Attr = 0
    with store.part(state.source, feature_shape=plan.feature_shape, dtype=dtype) as part:
        for index in state.chunks():
            path = store.chunk_path(state.source, index)
            chunk = load_chunk(path)
            if chunk is None:
                msg = f"{path} cannot be read back; check the disk, then run the same command again"
                raise StoreFormatError(msg)
            part.append(chunk)
            seen.add(chunk)
            for name in counts:
                counts[name] += int(chunk.attrs.get(name, 0))
            rotation = chunk.attrs.get("rotation", 0) if index == 0 else rotation
        happened = {name: count for name, count in counts.items() if count or name not in events}
        attrs: dict[str, Attr] = {**_clip_attrs(state.info), **happened, "rotation": rotation}
        for stage in STAGES if plan.task is None else (*STAGES, "task"):
            attrs[f"seconds_{stage}"] = seen.seconds[stage]
        attrs.update(seen.measures())
        attrs["n_key_frames"] = seen.frames - seen.delta_frames
        attrs["damage"] = state.damage
        part.finish(
            layers=layer_columns(seen.layers()),
            attrs=attrs,
            status="partial" if state.damage else "ok",
        )
    return seen


def _clip_attrs(info: ClipInfo | None) -> dict[str, Attr]:
    if info is None:
        return {}
    rate = info.average_rate
    return {
        "width": info.width,
        "height": info.height,
        "codec": info.codec,
        "container": info.container,
        "avg_fps": 0.0 if rate is None else float(rate),
        "duration": float(info.duration),
        "timestamps_from": info.timestamps,
        "n_declared": info.n_declared,
        "time_base": f"{info.time_base.numerator}/{info.time_base.denominator}",
    }
