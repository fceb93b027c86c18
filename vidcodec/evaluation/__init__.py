"""Codecs measured on sequences, from words on the command line to a page to look at.

datasets, fetching   sets of sequences and their downloads
clips                sampled frames, the same for every codec
codec                what a codec is here; video_rivals, picture_rivals, learned, filters, measured: each one
rivals               codecs by name, as `--codecs` takes them
metrics, bdrate      quality of frames, distance of curves
worker, runner       one point in a process of its own; many of them, kept and resumed
evaluate             the whole of it, readable top to bottom
results, tables      what comes out, its files and rows of text; provenance: who measured, and with which code
measurement          what scripts measure on top of it, and figures of what is inside, for results/
pictures, plots      frames and figures of results; report: the page
"""
