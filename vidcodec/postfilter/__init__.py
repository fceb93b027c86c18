"""Post-filtering a conventional codec's pictures, with an update for each video inside an ordinary file.

network     the filter: decoded planes and their quantiser in, corrections out
checkpoint  base filters on disk
planes      FFmpeg's pictures to planes and back; filtering one picture
quantiser   quantisers of all codecs on one scale
objective   pictures to learn from, and their error in bits of the video
finetune    turning the base filter towards one video
sparse      the literature's sparse updates, to compare with
message     what travels: which filter, where it is on, the coded update
carriage    messages inside H.264 and HEVC access units
media       containers: pictures with their messages, streams passed through
apply       which filter is in force
encode      source or coded file -> coded file with messages
decode      coded file -> filtered video
"""
