"""Benchmarks: each workload runs our code and its peers in the same session, and tells ratios.

`python -m bench` runs all of them and writes docs/benchmarks.md with its plots. Absolute numbers belong to one machine at one
moment; the ratios are what to look at. A peer that is not installed is named as absent; nothing is downloaded.
"""
