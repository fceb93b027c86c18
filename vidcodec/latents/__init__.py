"""Uniform, rate-distortion optimised and trellis-coded quantisation of latents, and their entropy coder.

    quantizer   what a file says about its quantiser; residuals to symbols, symbols to values
    choice      the kind, tables and step that suit given latents
    tables      integer distributions of the symbols of each quantiser, and their rates
    coder       their bytes: rANS that chooses the table of a symbol by the symbols before it
    kernels     the compiled loops of decisions (numba), imported on first use

Nothing here is imported before it is needed: numba takes a second to load.
"""
