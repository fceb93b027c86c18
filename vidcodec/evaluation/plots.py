"""Figures of results, as PNG and SVG: rate-distortion curves, bars of an ablation, curves over steps and frames."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vidcodec.evaluation.results import Results
from vidcodec.files import write_whole

AXES = {
    "psnr_yuv": "PSNR-YUV 6:1:1 (dB)",
    "psnr_y": "PSNR-Y (dB)",
    "psnr_rgb": "PSNR-RGB (dB)",
    "ms_ssim_y": "MS-SSIM-Y",
    "ssim_y": "SSIM-Y",
    "xpsnr_y": "XPSNR-Y (dB)",
}
SUFFIXES = (".png", ".svg")
OURS = ("vidcodec",)
MARKERS = "os^Dvp*hX"


def rd_curves(results: Results, clip: str, path: Path, metric: str = "psnr_yuv") -> list[Path]:
    """One clip's curves of all codecs, rate in logarithm, into `path`.png and .svg. Ours are drawn solid."""
    figure, axes = _figure()
    for number, codec in enumerate(results.codecs):
        points = [(p.bpp, q) for p in results.curve(clip, codec.label) if (q := p.quality.get(metric)) is not None]
        if points:
            style: dict[str, Any] = {"linestyle": "-" if codec.family in OURS else "--", "marker": MARKERS[number % 9]}
            axes.plot(*zip(*points, strict=True), label=codec.label, markersize=4, **style)
    info = results.clip(clip)
    axes.set_xscale("log")
    axes.set_title(f"{clip}: {info.frames} frames of {info.width}x{info.height}")
    axes.set_xlabel("bits per pixel")
    axes.set_ylabel(AXES.get(metric, metric))
    _plain_ticks(axes)
    axes.legend(fontsize=8)
    return _save(figure, path)


def ablation_bars(values: Mapping[str, Mapping[str, float | None]], path: Path, label: str) -> list[Path]:
    """Groups of bars: values[group][variant], None left out with 'N/A' in its place; label: of the axis."""
    figure, axes = _figure()
    variants = list(dict.fromkeys(name for group in values.values() for name in group))
    width = 0.8 / max(1, len(variants))
    for k, variant in enumerate(variants):
        heights = [group.get(variant) for group in values.values()]
        places = [i + (k - (len(variants) - 1) / 2) * width for i in range(len(values))]
        bars = axes.bar(places, [h or 0.0 for h in heights], width, label=variant)
        texts = ["N/A" if h is None else f"{h:+.2f}" for h in heights]
        axes.bar_label(bars, texts, fontsize=7, padding=2)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_xticks(range(len(values)), list(values))
    axes.set_ylabel(label)
    axes.margins(y=0.15)
    axes.legend(fontsize=8)
    return _save(figure, path)


def lines(
    curves: Mapping[str, Sequence[tuple[float, float]]],
    path: Path,
    x: str,
    y: str,
    *,
    log: str = "",
    zero: bool = False,
) -> list[Path]:
    """curves[name] = [(x, y)]. x, y: of the axes. log: those in logarithm, without what is not above zero. zero: drawn
    as a line.
    """
    figure, axes = _figure()
    for number, (name, points) in enumerate(curves.items()):
        drawn = [p for p in sorted(points) if all(p["xy".index(axis)] > 0 for axis in log)]
        if drawn:
            axes.plot(*zip(*drawn, strict=True), label=name, marker=MARKERS[number % 9], markersize=4, linewidth=1)
    if zero:
        axes.axhline(0, color="black", linewidth=0.8)
    for axis in log:
        getattr(axes, f"set_{axis}scale")("log")
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    if "x" in log:
        _plain_ticks(axes)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=7)
    return _save(figure, path)


def _figure() -> tuple[Any, Any]:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    axes.grid(alpha=0.3, which="both")
    return figure, axes


def _plain_ticks(axes: Any) -> None:
    from matplotlib.ticker import FuncFormatter, NullFormatter

    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(FuncFormatter(lambda value, _: f"{value:g}" if f"{value:.3e}"[0] in "25" else ""))
    if axes.get_yscale() == "log":
        axes.yaxis.set_minor_formatter(NullFormatter())


def _save(figure: Any, path: Path) -> list[Path]:
    import matplotlib

    path.parent.mkdir(parents=True, exist_ok=True)
    written = [path.with_name(path.name + suffix) for suffix in SUFFIXES]
    with matplotlib.rc_context({"svg.hashsalt": "vidcodec"}):  # the same file for the same figures
        for file in written:
            whole = io.BytesIO()
            metadata = {"Date": None} if file.suffix == ".svg" else None
            figure.savefig(whole, format=file.suffix[1:], dpi=130, metadata=metadata)
            write_whole(file, whole.getvalue())
    return written
