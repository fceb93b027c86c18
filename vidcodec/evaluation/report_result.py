"""The report's first part: who needs how many bits for the same quality, and the words to understand it."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from vidcodec.evaluation.report_charts import swatch
from vidcodec.evaluation.report_common import ELSEWHERE, METRICS, Section, compared_by, percent, section, signed
from vidcodec.evaluation.report_html import Child, Markup, bar, join, table, tag, terms
from vidcodec.evaluation.report_pictures import OURS, is_ours, main_codec
from vidcodec.evaluation.results import Comparison, Results

FAMILIES = {
    OURS: "this project's learned codec; where it adapts, it finetunes itself to the video and sends the changes along",
    "x264": "the H.264/AVC encoder most video on the web was made with",
    "x265": "an encoder for H.265/HEVC, H.264's successor",
    "svtav1": "an encoder for AV1, the open format of large streaming services",
    "vp9": "libvpx's encoder for VP9, AV1's predecessor",
    "vvenc": "an encoder for H.266/VVC, the newest of that line",
    "jpeg": "the picture format of 1992, one file a frame",
    "webp": "a newer picture format, one file a frame",
    "compressai": "learned picture codecs of the CompressAI library, through this project's file format",
    "filter": "a conventional encoder with this project's learned filter behind its decoder",
    "png": "the lossless picture format of the web, one file a picture",
    "jxl": "JPEG XL, lossless, one file a picture",
    "ffv1": "FFmpeg's lossless video format, made for archives",
}
MODES = {
    "intra": "every frame is coded on its own",
    "lossless": "every sample comes back as it was",
    "inter": "frames may also copy from other frames, which saves most where the camera stands still",
}
_FACTORS = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8, 16, 32)
_FINE_FACTORS = (0.8, 0.9, 1, 1.1, 1.25, 1.5)


def result_section(results: Results, styles: dict[str, int]) -> Section:
    """Distances between the curves, and a glossary."""
    return section("result", "Result", "The result", _verdict(results), _distances(results, styles), _glossary(results))


def _verdict(results: Results) -> Markup | None:
    """The main result in a sentence; None where there is no BD-rate of ours."""
    main = main_codec(results)
    keys = [key for key in compared_by(results) if any(c.metric == key for c in results.comparisons)]
    if main is None or main == results.anchor or not keys:
        return None
    clips = len(results.clips)
    found, _ = _of_codec([c for c in results.comparisons if c.metric == keys[0]], main)
    us, them, average = tag("b", main), tag("b", str(results.anchor)), " on average" if clips > 1 else ""
    if found is not None and found.bd_rate is not None:
        share = tag("b", f"{abs(found.bd_rate):.3g} % {'more' if found.bd_rate >= 0 else 'fewer'} bits")
        part = f" (over {found.clips[0]} of {clips} clips)" if found.clip is None and found.clips[0] < clips else ""
        said = join(["For the same quality ", us, " needs ", share, " than ", them, average, part, "."])
    elif found is not None and found.bd_psnr is not None:
        gain = tag("b", f"{abs(found.bd_psnr):.2f} dB {'better' if found.bd_psnr >= 0 else 'worse'}")
        said = join(["At the same size ", us, " is ", gain, " than ", them, average, "."])
    else:
        said = join(["The curves of ", us, " and ", them, " are too short, or overlap too little, for one number."])
    return tag("p", said, class_="verdict")


def _glossary(results: Results) -> Markup:
    families = [f for f in dict.fromkeys(codec.family for codec in results.codecs) if f in FAMILIES]
    codecs: list[tuple[str, Child]] = [(family, FAMILIES[family]) for family in families]
    labels = " ".join(codec.label for codec in results.codecs)
    codecs += [(f":{mode}", text) for mode, text in MODES.items() if re.search(rf":{mode}\b", labels)]
    if elsewhere := [codec.label for codec in results.codecs if codec.family == ELSEWHERE]:
        codecs.append((", ".join(elsewhere), "measured elsewhere, read from a file of points"))
    words: list[tuple[str, Child]] = [
        (
            "Curve",
            "A codec turns frames into a small file and back. Each file it made is one point: further right is a "
            "larger file, higher is a better picture. The curve that lies further up and to the left belongs to the "
            "better codec.",
        ),
        (
            "Bits per pixel (bpp)",
            "The size of the file in bits, divided by the pixels of all its frames. Uncompressed 4:2:0 video has 12, "
            "so 0.1 bpp is a file 120 times smaller.",
        ),
        (
            "PSNR",
            "How close the decoded frame is to the original, in decibels (dB): higher is better, and one dB more is a "
            "fifth less squared error. Around 30 dB losses are plain to see, above 40 dB hard to find. PSNR-YUV weighs "
            "brightness (Y) against the two colour planes (U, V) as 6 : 1 : 1.",
        ),
        (
            "BD-rate",
            [
                "The distance between two curves in one number: by how many per cent the files of a codec are larger "
                "(+) or smaller (−) than those of ",
                tag("b", results.anchor or "the codec it is compared with"),
                " at equal quality, averaged over the qualities both reach (Bjøntegaard's method). −20 % is the same "
                "picture in a fifth fewer bits. N/A: the curves overlap too little to say.",
            ],
        ),
    ]
    listed = [tag("h3", "The codecs"), terms(codecs, "terms")] if codecs else []
    return join([tag("h3", "Words on this page"), terms(words, "glossary"), *listed])


def _distances(results: Results, styles: dict[str, int]) -> Markup:
    """BD-rates by metric: bars on a scale of factors, and a table."""
    metrics = compared_by(results)
    if not results.comparisons:
        said = "No codec was named to compare the others with, so there are no BD-rates: see the curves."
        return join([tag("p", said), _choice(metrics)])
    dots = " The bar is the mean over clips, the dots are the clips." if len(results.clips) > 1 else ""
    said = f"File size for equal quality, in multiples of the size {results.anchor} needs: left is better.{dots}"
    blocks = [
        tag("div", _bars(results, styles, key), _table(results, styles, key), data_metric=key, hidden=number > 0)
        for number, key in enumerate(metrics)
    ]
    return join([tag("p", said), _choice(metrics), blocks])


def _choice(metrics: Sequence[str]) -> Markup | None:
    """Buttons that switch what the whole page shows as quality."""
    if len(metrics) < 2:
        return None
    buttons = [
        tag("button", METRICS[key].name, type="button", data_choose=key, aria_pressed="false" if number else "true")
        for number, key in enumerate(metrics)
    ]
    return tag("div", tag("span", "Quality as"), buttons, class_="choice", role="group", aria_label="Quality measure")


def _bars(results: Results, styles: dict[str, int], metric: str) -> Markup | None:
    """A row per codec: its mean as a bar from 1x on, clips as dots, on a logarithmic scale of factors."""
    found = [c for c in results.comparisons if c.metric == metric and c.codec != results.anchor]
    factors = [_factor(c.bd_rate) for c in found if c.bd_rate is not None]
    if not factors:
        return None
    low, high = min(0.8, *factors), max(1.25, *factors)
    begin, span = math.log(low) - 0.1, math.log(high) - math.log(low) + 0.2

    def at(factor: float) -> float:
        return round(100 * (math.log(factor) - begin) / span, 2)

    marks = [f for f in (_FACTORS if high / low > 3 else _FINE_FACTORS) if low <= f <= high]
    rules = [tag("i", class_="rule one" if f == 1 else "rule", style=f"left:{at(f)}%") for f in marks]
    rows = []
    for codec in _order(results, metric):
        mean, single = _of_codec(found, codec)
        row: list[Child] = list(rules)
        value = None if mean is None else mean.bd_rate
        if value is not None:
            left, right = sorted((at(_factor(value)), at(1)))
            row.append(tag("i", class_=f"bar {_side(value)}", style=f"left:{left}%;width:{right - left:.2f}%"))
        row += [
            tag("i", class_="dot", style=f"left:{at(_factor(c.bd_rate))}%", title=f"{c.clip}: {percent(c.bd_rate)}")
            for c in single
            if c.bd_rate is not None
        ]
        who = [swatch(styles[codec], strong=codec == main_codec(results)), codec]
        kind = "row ours" if is_ours(results, codec) else "row"
        rows.append(bar(who, row, "N/A" if value is None else percent(value), kind, class_="track"))
    scale = [tag("span", _times(f), style=f"left:{at(f)}%") for f in marks]
    axis = tag("div", tag("span", class_="who"), tag("span", scale, class_="scale"), tag("span"), class_="row")
    label = f"File size for equal {METRICS[metric].name}; the table below has the figures"
    return tag("div", rows, axis, class_="bars", role="img", aria_label=label)


def _table(results: Results, styles: dict[str, int], metric: str) -> Markup:
    """Codecs by clips."""
    if not any(c.metric == metric for c in results.comparisons):
        return tag("p", f"No BD-rates were computed by {METRICS[metric].name}.", class_="quiet")
    clips = [clip.name for clip in results.clips]
    found = [c for c in results.comparisons if c.metric == metric]
    columns = ["mean", *clips] if len(clips) > 1 else clips
    rows = []
    for codec in _order(results, metric):
        mean, single = _of_codec(found, codec)
        entries = {"mean": mean, **{c.clip: c for c in single}} if len(clips) > 1 else {c.clip: c for c in single}
        label = tag("th", swatch(styles[codec], strong=codec == main_codec(results)), codec, scope="row")
        rows.append(tag("tr", label, [_cell(name, entries.get(name), len(clips)) for name in columns]))
    caption = (
        f"BD-rate against {results.anchor} by {METRICS[metric].name}, and below it the same distance as quality: "
        "decibels more or less at equal size."
        if metric != "bytes"
        else f"Bytes against {results.anchor}: every decoded frame is the original one, sample by sample."
    )
    return table(["codec", *columns], rows, "cards bd", caption)


def _cell(column: str, found: Comparison | None, clips: int) -> Markup:
    if found is None:
        return tag("td", "N/A", data_label=column)
    rate = tag("span", "N/A")
    if found.bd_rate is not None:
        rate = tag("b", percent(found.bd_rate), class_=_side(found.bd_rate))
    gain = None if found.bd_psnr is None else tag("small", f"{signed(found.bd_psnr, 2)} dB")
    part = found.clip is None and found.bd_rate is not None and found.clips[0] < clips
    few = tag("small", f"{found.clips[0]} of {clips} clips") if part else None
    return tag("td", rate, gain, few, data_label=column, title=found.note or None)


def _order(results: Results, metric: str) -> list[str]:
    """Codecs that were compared, best mean first, those without a mean last."""
    found = [c for c in results.comparisons if c.metric == metric and c.codec != results.anchor]
    means = {c.codec: c.bd_rate for c in found if c.clip is None and c.bd_rate is not None}
    return sorted(dict.fromkeys(c.codec for c in found), key=lambda codec: means.get(codec, math.inf))


def _of_codec(found: Sequence[Comparison], codec: str) -> tuple[Comparison | None, list[Comparison]]:
    """The mean over clips, and the single clips."""
    mine = [c for c in found if c.codec == codec]
    single = [c for c in mine if c.clip is not None]
    mean = next((c for c in mine if c.clip is None), single[0] if len(single) == 1 else None)
    return mean, single


def _factor(bd_rate: float) -> float:
    """-50 % as 0.5; bounded, so that no outlier takes the whole scale."""
    return min(max(1 + bd_rate / 100, 1 / 20), 40.0)


def _side(bd_rate: float) -> str:
    return "fewer" if bd_rate < 0 else "more"


def _times(factor: float) -> str:
    return f"{factor:.3g}×" if factor > 0.5 else f"1/{1 / factor:.0f}×"
