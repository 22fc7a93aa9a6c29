"""The closing words of a run."""

from __future__ import annotations

from rrm_extract.jobs import RunSummary
from rrm_extract.jobs.accounting import STAGES
from rrm_extract.printable import printable
from rrm_extract.report.audit import audit_lines, audit_measures
from rrm_extract.report.delta_frames import delta_frame_lines
from rrm_extract.report.table import number

__all__ = ["summary_text"]


def summary_text(summary: RunSummary) -> str:
    """A few lines: what was done, what failed, where the time went, what was saved."""
    accounting = summary.accounting
    failed = len(summary.failures)
    videos = f"{summary.videos} videos" if summary.videos != 1 else "1 video"
    lines = [
        f"{summary.output}: {videos}, {failed} of them failed or partial"
        + (f", {summary.done_before} done before" if summary.done_before else "")
    ]
    lines += [printable(f"  {record.video_id}: {record.message}") for record in summary.failures]
    lines += [f"weights {summary.weights}, layer {summary.layer}", *summary.notes]
    if accounting.frames:
        measures = accounting.measures()
        computed = accounting.frames - summary.frames_before
        rate = computed / summary.seconds
        lost = summary.workers_lost
        before = f" and {summary.frames_before} of earlier runs" if summary.frames_before else ""
        calibrate = f"{summary.seconds_calibrate:.1f} s to calibrate and "
        lines.append(
            f"{computed} frames in {summary.seconds:.1f} s ({rate:.1f} frames/s, of it "
            f"{calibrate if summary.seconds_calibrate >= 0.05 else ''}"
            f"{summary.seconds_load:.1f} s until the network was loaded){before}, "
            f"{summary.workers} workers" + (f", {lost} of them lost and replaced" if lost else "")
        )
        stages = ", ".join(
            f"{stage} {accounting.seconds[stage]:.1f} s"
            for stage in (*STAGES, "task", "write")
            if stage in accounting.seconds
        )
        over = "workers"
        if summary.frames_before:
            over += " and all runs (but write: of this one)"
        lines.append(f"time by stage, summed over {over}: {stages}")
        if accounting.found is not None:
            lines.append(
                f"found {accounting.found} {summary.finds}, "
                f"{accounting.found / accounting.frames:.2f} per frame"
            )
        if accounting.not_finite:
            what, becomes = (
                ("features", "are stored as they are")
                if accounting.found is None
                else ("raw outputs", "what was found in them is not to be trusted")
            )
            lines.append(
                f"warning: the {what} of {accounting.not_finite} frames have NaN or infinities, "
                f"and {becomes}; look at the weights, and run verify"
            )
        lines.append(
            f"overall sparsity of the deltas: {number(measures['sparsity_macs'])} by MACs, "
            f"{number(measures['sparsity_elements'])} by elements"
        )
        lines += delta_frame_lines(accounting.frames, accounting.delta_frames)
        lines.append(
            f"theoretical speedup: {measures['speedup_theoretical']:.2f} over the dense network "
            "(MACs, key frames included); not a time"
        )
        lines += audit_lines(
            audit_measures(accounting.audited_errors(), accounting.estimates(), accounting.events)
        )
        parent, worker, load = (size / 2**20 for size in summary.peak_memory)
        in_worker = f", and {worker:.0f} MB in a worker (weights are one copy, counted in each)"
        lines.append(f"peak memory: {parent:.0f} MB{in_worker if worker else ''}")
        lines.append(
            f"loading the network took {load:.0f} MB, in a process that has ended since"
            if load
            else "the network was kept by an earlier job (RRM_CACHE=off loads it anew)"
        )
    return "\n".join(lines)
